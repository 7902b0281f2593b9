"""A server or a trainer that dies in the middle of PPO: the same command goes on and ends as if undisturbed."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import Settings, Tiny, metrics_of, run_command, run_stage, start_command
from vllm_stand_in import serving

from rlhf_cli.errors import UnavailableError
from rlhf_cli.run.directory import RunDir

BATCH_SIZE = 8
NUM_PROOFS = 4
DIES_AFTER = (NUM_PROOFS + BATCH_SIZE) + NUM_PROOFS + BATCH_SIZE // 2
"""In the middle of the answers of the second of three iterations."""


def settings_for(tiny: Tiny, url: str, run_dir: str) -> Settings:
    rollout = {"engine": "vllm", "url": url, "batch_size": BATCH_SIZE, "max_new_tokens": 6}
    return tiny.settings("ppo", run_dir=run_dir, rollout=rollout, ppo__iterations=3)


def assert_same_runs(one: RunDir, other: RunDir) -> None:
    assert metrics_of(one) == metrics_of(other)
    ours, theirs = (load_file(run.model / "model.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def undisturbed(tiny: Tiny, folder: Path) -> RunDir:
    with serving(tiny.model) as server:
        return run_stage("ppo", settings_for(tiny, server.url, "whole"), folder).dir


def test_a_server_that_dies_half_way_and_starts_again_changes_nothing(tiny: Tiny, work: Path):
    with (
        serving(tiny.model, dies_after=DIES_AFTER) as server,
        pytest.raises(UnavailableError, match="HTTP 500"),
    ):
        run_stage("ppo", settings_for(tiny, server.url, "broken"), work)
    assert server.num_answers == DIES_AFTER
    with serving(tiny.model) as server:  # at another address
        run = run_stage("ppo", settings_for(tiny, server.url, "broken"), work)
    assert [name.rpartition("-")[2] for name in server.loaded] == ["1", "2"]
    assert_same_runs(run.dir, undisturbed(tiny, work))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_trainer_that_ends_during_a_hand_over_goes_on(tiny: Tiny, work: Path, number: int, code: int):
    with serving(tiny.model, holds_load=1) as server:
        trainer = start_command("ppo", settings_for(tiny, server.url, "broken"), work)
        assert server.load_began.wait(300)
        trainer.send_signal(number)
        _, said = trainer.communicate(timeout=300)
        assert trainer.returncode == code, said
        assert server.running.is_set() == (number == signal.SIGTERM)  # a dead trainer leaves it paused
        server.load_may_end.set()
        again = run_command("ppo", settings_for(tiny, server.url, "broken"), work)
        assert again.returncode == 0, again.stderr
        run_command("ppo", settings_for(tiny, server.url, "whole"), work)
    assert_same_runs(RunDir(work / "broken"), RunDir(work / "whole"))
