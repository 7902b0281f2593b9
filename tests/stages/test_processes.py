"""Runs of several processes: they compute what one computes, and end and go on together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launch import run_ranks, said_by, start_ranks, wait_for_checkpoint
from safetensors.torch import load_file
from tiny import Settings, Tiny, column, run_command, write_config

from rlhf_cli.run.directory import RunDir

pytestmark = pytest.mark.slow

# Some of the means that every process must have added up for all.
METRICS = {
    "sft": ("loss", "grad_norm", "tokens", "eval/loss"),
    "train-rm": ("loss", "grad_norm", "accuracy", "eval/margin"),
    "dpo": ("loss", "grad_norm", "margin", "eval/loss"),
    "ppo": ("loss", "grad_norm/policy", "grad_norm/critic", "reward", "kl", "explained_variance", "eval/kl"),
}


def settings_of(stage: str, tiny: Tiny, name: str, strategy: str = "auto", **changes: object) -> Settings:
    """Give a configuration whose steps are several micro-batches, not a multiple of the processes."""
    with_eval = {"data__eval": tiny.settings(stage)["data"]["train"], "eval": {"every_steps": 2}}
    wide = {"train__micro_tokens": 60, "distributed": {"strategy": strategy}}
    return tiny.settings(stage, run_dir=name, **with_eval, **wide, **changes)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_weights(one: Path, other: Path, *, tolerance: float) -> None:
    expected, found = weights_of(one), weights_of(other)
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) <= tolerance


@pytest.mark.parametrize("stage", METRICS)
def test_two_processes_compute_what_one_computes(stage: str, tiny: Tiny, tmp_path: Path):
    assert run_ranks(stage, settings_of(stage, tiny, "one"), tmp_path, 1) == [0]
    for strategy in ("ddp", "fsdp"):
        assert run_ranks(stage, settings_of(stage, tiny, strategy, strategy), tmp_path, 2) == [0, 0]
        for name in METRICS[stage]:
            expected = column(RunDir(tmp_path / "one"), name)
            assert expected, name
            assert column(RunDir(tmp_path / strategy), name) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert_same_weights(tmp_path / "one", tmp_path / strategy, tolerance=1e-4)


@pytest.mark.parametrize("stage", ["train-rm", "ppo"])
def test_adapters_learn_the_same_on_two_processes(stage: str, tiny: Tiny, tmp_path: Path):
    lora = {"model__lora": {"rank": 2, "alpha": 4.0}}
    assert run_ranks(stage, settings_of(stage, tiny, "one", **lora), tmp_path, 1) == [0]
    for strategy in ("ddp", "fsdp"):
        assert run_ranks(stage, settings_of(stage, tiny, strategy, strategy, **lora), tmp_path, 2) == [0, 0]
        assert_same_weights(tmp_path / "one", tmp_path / strategy, tolerance=1e-4)


def test_a_loss_that_needs_the_whole_step_is_the_same_on_two_processes(tiny: Tiny, tmp_path: Path):
    whole = {"loss": {"type": "bco_pair"}}
    assert run_ranks("dpo", settings_of("dpo", tiny, "one", **whole), tmp_path, 1) == [0]
    assert run_ranks("dpo", settings_of("dpo", tiny, "two", "fsdp", **whole), tmp_path, 2) == [0, 0]
    assert_same_weights(tmp_path / "one", tmp_path / "two", tolerance=1e-4)


@pytest.mark.parametrize(("stage", "strategy"), [("sft", "fsdp"), ("ppo", "ddp")])
def test_a_run_whose_process_is_killed_goes_on_with_any_number_of_them(
    stage: str, strategy: str, tiny: Tiny, tmp_path: Path
):
    longer = {"ppo__iterations": 8} if stage == "ppo" else {"train__max_steps": 16}
    settings = settings_of(stage, tiny, "killed", strategy, **longer)
    for size, step in ((2, 2), (4, 6)):
        processes = start_ranks(stage, settings, tmp_path, size)
        wait_for_checkpoint(tmp_path / "killed", step, processes)
        processes[-1].kill()
        codes = [process.wait(timeout=120) for process in processes]
        assert codes == [69] * (size - 1) + [-signal.SIGKILL]
        assert "lost contact with the other processes" in said_by(tmp_path, 0)
        assert "Traceback" not in said_by(tmp_path, 0)
    assert run_ranks(stage, settings, tmp_path, 1) == [0]
    assert "resumed from step" in said_by(tmp_path, 0)
    drifts = json.loads((tmp_path / "killed" / "manifest.json").read_text())["drifts"]
    assert [drift["change"] for drift in drifts] == ["processes: 2 -> 4", "processes: 4 -> 1"]
    assert run_ranks(stage, settings | {"run_dir": "straight"}, tmp_path, 1) == [0]
    assert_same_weights(tmp_path / "straight", tmp_path / "killed", tolerance=1e-4)
    expected = column(RunDir(tmp_path / "straight"), "loss")
    assert column(RunDir(tmp_path / "killed"), "loss") == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_resuming_on_the_same_processes_changes_no_bit(tiny: Tiny, tmp_path: Path):
    straight = settings_of("sft", tiny, "straight", "ddp", train__max_steps=8)
    assert run_ranks("sft", straight, tmp_path, 2) == [0, 0]
    stopped = settings_of("sft", tiny, "stopped", "ddp", train__max_steps=8)
    processes = start_ranks("sft", stopped, tmp_path, 2)
    wait_for_checkpoint(tmp_path / "stopped", 2, processes)
    processes[1].send_signal(signal.SIGUSR1)  # one of them is told; all stop
    codes = [process.wait(timeout=120) for process in processes]
    assert codes == [75, 75]
    assert run_ranks("sft", stopped, tmp_path, 2) == [0, 0]
    assert_same_weights(tmp_path / "straight", tmp_path / "stopped", tolerance=0.0)


def test_torchrun_stops_within_its_time_and_goes_on(tiny: Tiny, tmp_path: Path):
    settings = settings_of("sft", tiny, "stopped", "fsdp", train__max_steps=400)
    path = write_config("sft", settings, tmp_path)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "rlhf_cli", "sft", "--config", str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True
    )
    wait_for_checkpoint(tmp_path / "stopped", 2, [process])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    manifest = json.loads((tmp_path / "stopped" / "manifest.json").read_text())
    assert (manifest["status"], manifest["exit_code"]) == ("preempted", 75)
    done = run_command("sft", settings, tmp_path)
    assert done.returncode == 0
    assert f"resumed from step {manifest['last_checkpoint_step']}" in done.stderr


def test_only_rank_0_speaks_and_owns_the_run(tiny: Tiny, tmp_path: Path):
    processes = start_ranks(
        "sft", settings_of("sft", tiny, "run"), tmp_path, 2, "--json", stdout=subprocess.PIPE
    )
    results = [process.communicate(timeout=120)[0] for process in processes]
    assert json.loads(results[0])["status"] == "completed"
    assert results[1] == ""
    assert said_by(tmp_path, 1) == ""
    assert "step=4" in (tmp_path / "run" / "ranks" / "1" / "log.txt").read_text()
    assert run_ranks("sft", settings_of("sft", tiny, "run"), tmp_path, 2) == [0, 0]
    assert "already complete" in said_by(tmp_path, 0)


def test_an_error_of_the_first_process_ends_the_others_as_well(tiny: Tiny, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    assert run_ranks("sft", settings_of("sft", tiny, "taken"), tmp_path, 2) == [73, 73]
    assert "not empty and not a run" in said_by(tmp_path, 0)
    assert said_by(tmp_path, 1) == ""
    broken = settings_of("sft", tiny, "broken", data__train=[{"path": "none.jsonl"}])
    assert run_ranks("sft", broken, tmp_path, 2) == [66, 66]
