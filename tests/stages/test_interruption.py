"""The promise: whatever kills a run, the same command again ends with the same bytes."""

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny import Settings, Tiny, metrics_of, run_command, start_command

from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import read_manifest
from rlhf_cli.run.metrics import MetricsLog

DEADLINE_SECONDS = 240


def settings_of(stage: str, tiny: Tiny) -> Settings:
    """Give a run long enough to be hit in the middle."""
    changes = {"checkpoint__every_steps": 3, "log__every_steps": 1, "model__path": tiny.model}
    if stage == "ppo":
        return tiny.settings(
            "ppo",
            ppo={"epochs": 2, "minibatches": 2, "iterations": 20, "kl": {"target": 0.05, "horizon": 100}},
            rollout={"batch_size": 8, "max_new_tokens": 10},
            **changes,
        )
    lora = {"rank": 4, "dropout": 0.1}  # dropout draws from the global generator
    return tiny.settings(stage, train__max_steps=80, model__lora=lora, **changes)


def wait_for_lines(process: "subprocess.Popen[str]", run_dir: RunDir, count: int, since: float) -> None:
    """Return once `count` lines of metrics are written after `since`, or the process ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if sum(row["time"] > since for row in MetricsLog(run_dir.metrics).read()) >= count:
            return
        time.sleep(0.005)


def strike(stage: str, settings: Settings, folder: Path, number: int, after_lines: int, delay: float) -> int:
    """Start the command, send it a signal some time after a line of metrics, and return how it ended."""
    since = time.time()
    process = start_command(stage, settings, folder)
    wait_for_lines(process, RunDir(folder / settings["run_dir"]), after_lines, since)
    time.sleep(delay)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_killed_and_stopped_again_and_again(stage: str, tiny: Tiny, tmp_path: Path):
    settings = settings_of(stage, tiny)
    straight = run_command(stage, settings | {"run_dir": "straight"}, tmp_path)
    assert straight.returncode == 0, straight.stderr
    assert straight.stdout == "straight/model\n"

    chance = random.Random(stage)
    for after_lines, number in [
        (0, signal.SIGKILL),  # while it loads, or at its first steps
        (1, signal.SIGKILL),
        (8, signal.SIGKILL),
        (5, signal.SIGTERM),
        (10, signal.SIGKILL),
        (7, signal.SIGTERM),
    ]:
        delay = chance.uniform(0, 0.05) if after_lines else chance.uniform(2, 5)
        code = strike(stage, settings, tmp_path, number, after_lines, delay)
        assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    last = run_command(stage, settings, tmp_path)
    assert last.returncode == 0, last.stderr
    assert "resumed from step" in last.stderr

    run, expected = RunDir(tmp_path / stage), RunDir(tmp_path / "straight")
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert (run.model / name).read_bytes() == (expected.model / name).read_bytes()
    assert metrics_of(run) == metrics_of(expected)
    assert not list(run.checkpoints.glob(".*"))

    manifest = read_manifest(run)
    assert manifest is not None
    ends = ["killed", "killed", "preempted", "killed", "preempted", "completed"]
    assert [attempt.status for attempt in manifest.attempts][
        -6:
    ] == ends  # the first may die before it has begun
    starts = [attempt.resumed_from_step or 0 for attempt in manifest.attempts]
    assert starts == sorted(starts)
    assert len(set(starts)) >= 4

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = run_command(stage, settings, tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (again.returncode, again.stdout) == (0, f"{stage}/model\n")
    assert "already complete" in again.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
