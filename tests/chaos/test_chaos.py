"""The harness that breaks runs: what it finds in ours, and that it finds what is broken."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.chaos.campaigns import Tally
from rlhf_cli.chaos.evidence import broken, differences
from rlhf_cli.chaos.trials import Verdict
from rlhf_cli.commands.selftest import Plan
from rlhf_cli.run.directory import sha256_file


def run(plan: Plan, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a plan as the command does: forks need a process without threads, which pytest's is not."""
    plan = dataclasses.replace(plan, work=str(folder / "world"))
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "rlhf_cli.chaos", json.dumps(dataclasses.asdict(plan))]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)


def test_struck_runs_end_as_if_nothing_had_been_and_the_control_does_not(tmp_path: Path):
    plan = Plan(["sft", "ppo"], kills=1, terms=1, corruptions=24, operations=["kill", "ENOSPC"], every=30)
    done = run(plan, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in plan.stages:
        for line in ("kill at every operation", "ENOSPC at every operation", "random SIGKILL"):
            assert f"{stage}: {line}" in done.stdout
    inside, behind = [line for line in done.stdout.splitlines() if line.startswith("control")]
    assert "FAILED" in inside
    assert "0 failures" in behind
    assert "cannot be resumed" in done.stdout


@pytest.mark.slow
def test_every_stage_and_every_kind_of_fault(tmp_path: Path):
    stages = ["sft", "train-rm", "dpo", "ppo", "collect"]
    plan = Plan(stages, kills=2, terms=2, operations=["kill", "ENOSPC", "EIO"], every=20)
    done = run(plan, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_no_nan_is_published(tmp_path: Path):
    done = run(Plan(["sft"], nan=True), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "54 NaNs, 0 failures" in done.stdout


def test_a_fault_that_never_fires_is_no_success():
    tally = Tally("nothing happened")
    tally.add(Verdict("kill at 1", fired=False, faults=()))
    assert not tally.passed
    assert "FAILED" in str(tally)


def test_one_failure_among_many_trials_fails_and_is_named():
    tally = Tally("kills")
    for faults in [(), (), ("differs: metrics",)]:
        tally.add(Verdict("kill at 7", fired=True, faults=faults))
    assert not tally.passed
    assert "3 trials, 3 faults, 1 failures" in str(tally)
    assert "kill at 7: differs: metrics" in str(tally)


def test_the_bound_is_three_over_n():
    tally = Tally("kills")
    for _ in range(200):
        tally.add(Verdict("kill", fired=True, faults=()))
    assert "at most 1.5 % fail" in str(tally)


def test_differences_see_what_is_missing_changed_and_new():
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]


def test_a_flipped_bit_in_a_published_checkpoint_is_seen(tmp_path: Path):
    path = tmp_path / "step-000002"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    manifest = {"files": {"model.safetensors": {"sha256": sha256_file(path / "model.safetensors")}}}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    assert broken([path]) == []
    (path / "model.safetensors").write_bytes(b"weighty")
    assert broken([path]) == ["step-000002/model.safetensors"]
    (path / "MANIFEST.json").write_text("{")
    assert broken([path])
