"""Trackers: what they are given, that nothing but numbers leaves, and what happens where one is not installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import Tiny, run_command

from rlhf_cli.errors import UnavailableError
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.session import StageResult, open_run
from rlhf_cli.run.trackers import ListTracker, Tracked, numeric_settings, open_trackers

SECRET = "hf_very_secret"
TREE = {
    "run_dir": "run", "seed": 3, "model": {"path": SECRET, "lora": {"rank": 8}, "trust_remote_code": False},
    "data": {"train": [{"path": SECRET}]}, "optim": {"lr": 0.5, "schedule": SECRET},
}  # fmt: skip


def test_only_numbers_and_switches_leave():
    settings = numeric_settings(TREE)
    assert settings == {"seed": 3, "model.lora.rank": 8, "model.trust_remote_code": False, "optim.lr": 0.5}
    assert SECRET not in json.dumps(settings)


def test_a_run_gives_its_trackers_every_line_and_the_end(tmp_path: Path):
    tracker = ListTracker()
    with open_run(RunSpec("sft", tmp_path / "run", "digest", {"log": {"trackers": []}})) as run:
        run.trackers.append(tracker)
        run.note_metrics(1, {"loss": 0.5})
        run.note_metrics(2, {"eval/loss": 0.25})
        (tmp_path / "model").mkdir()
        run.finish(StageResult(tmp_path / "model", 2, {}))
    assert tracker.rows == [(1, {"loss": 0.5}), (2, {"eval/loss": 0.25})]
    assert tracker.closed


def test_a_tracker_that_is_not_installed_stops_the_run_before_it_begins(tmp_path: Path):
    with (
        pytest.raises(UnavailableError, match="not installed") as raised,
        open_trackers(["no_such_tracker"], Tracked(tmp_path, "sft", {})),
    ):
        pytest.fail("it opened")
    assert raised.value.exit_code == 69
    assert "rlhf-cli[no_such_tracker]" in str(raised.value.fix)


def test_a_run_that_goes_on_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    here, again = Tracked(Path("runs/a"), "sft", {}), Tracked(tmp_path / "runs/a", "sft", {})
    assert (here.name, here.id) == (again.name, again.id)
    assert here.id != Tracked(Path("runs/b"), "sft", {}).id


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is an extra")


@installed("tensorboard")
@pytest.mark.slow
def test_tensorboard_holds_the_metrics_of_a_real_run(tiny: Tiny, tmp_path: Path):
    settings = tiny.settings("sft", log__trackers=["tensorboard"], train__max_steps=3)
    done = run_command("sft", settings, tmp_path)
    assert done.returncode == 0, done.stderr
    program = (
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; import sys;"
        "e = E(sys.argv[1]); e.Reload(); print([(x.step, x.value) for x in e.Scalars('loss')])"
    )
    folder = str(tmp_path / "sft/tensorboard")
    read = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in (tmp_path / "sft/metrics.jsonl").read_text().splitlines()]
    seen = json.loads(read.stdout.strip().splitlines()[-1].replace("(", "[").replace(")", "]"))
    assert seen == [[row["step"], pytest.approx(row["loss"])] for row in rows if "loss" in row]


@installed("wandb")
@pytest.mark.slow
def test_wandb_offline_writes_into_the_run_and_holds_no_text_of_the_configuration(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    (tmp_path / SECRET).mkdir()
    settings = tiny.settings("sft", log__trackers=["wandb"], train__max_steps=2)
    done = run_command("sft", settings, tmp_path / SECRET)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / SECRET / "sft/wandb").glob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    assert b"grad_norm" in content
    assert tiny.demonstrations.encode() not in content
    assert SECRET.encode() not in content
