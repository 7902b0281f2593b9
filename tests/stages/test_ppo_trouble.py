"""PPO in trouble: too little memory makes smaller micro-batches and the same updates, bad numbers are left out."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import Tiny, column, metrics_of, run_stage

from rlhf_cli.errors import ResourceError
from rlhf_cli.models.actor_critic import ActorCritic
from rlhf_cli.rollout.measured import PpoBatch
from rlhf_cli.run.directory import RunDir, read_json_lines
from rlhf_cli.stages.ppo import Learner
from rlhf_cli.training.parts import Loss

PPO = {"epochs": 2, "minibatches": 2, "iterations": 3, "kl": {"target": 0.05, "horizon": 100}}


def tighten(monkeypatch: pytest.MonkeyPatch, most_answers: int, *, from_call: int = 0) -> list[int]:
    """Make training on more than some answers at once fail from some call on; return the sizes of all calls."""
    sizes: list[int] = []
    judge = ActorCritic.judge

    def tight(self, inputs, predictor_index, target_ids, **options):
        judged = judge(self, inputs, predictor_index, target_ids, **options)
        if torch.is_grad_enabled():
            num_answers = math.ceil(len(target_ids) / 6)  # none of them ends before
            sizes.append(num_answers)
            if len(sizes) > from_call and num_answers > most_answers:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return judged

    monkeypatch.setattr(ActorCritic, "judge", tight)
    return sizes


@pytest.mark.parametrize("from_call", [0, 1, 6])  # at the rehearsal, and in a minibatch of either half
def test_micro_batches_are_halved_and_the_updates_stay(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_call: int
):
    settings = tiny.settings("ppo", ppo=PPO, rollout={"batch_size": 8, "max_new_tokens": 6})
    roomy = run_stage("ppo", settings, tmp_path).dir
    with monkeypatch.context() as patch:
        sizes = tighten(patch, 1, from_call=from_call)
        tight = run_stage("ppo", settings | {"run_dir": "tight"}, tmp_path).dir
    assert max(sizes) > 1
    assert max(sizes[from_call + 8 :]) == 1
    assert "micro-batches are halved" in tight.log.read_text()
    assert column(tight, "reward") == column(roomy, "reward")
    assert column(tight, "kl") == pytest.approx(column(roomy, "kl"), abs=1e-4)
    one, other = (load_file(run.model / "model.safetensors") for run in (roomy, tight))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_one_answer_that_does_not_fit_ends_the_run_before_anything_is_sampled(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tighten(monkeypatch, 0)
    settings = tiny.settings("ppo", ppo=PPO, rollout={"batch_size": 8, "max_new_tokens": 6})
    with pytest.raises(ResourceError, match="one row alone does not fit"):
        run_stage("ppo", settings, tmp_path)
    kinds = [event["kind"] for event in read_json_lines(RunDir(tmp_path / "ppo").events)]
    assert "training" not in kinds


def test_bad_numbers_inside_an_iteration_go_back_to_its_start(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    objective, broken = (
        Learner.objective,
        {(1, 1), (1, 2), (2, 3)},
    )  # steps 6, 7 and 8: the last one counts as begun

    def poisoned(self: Learner, batch: PpoBatch) -> Loss:
        loss = objective(self, batch)
        place = (self.experience._iteration, self.experience._number)
        return replace(loss, total=loss.total * math.nan) if place in broken else loss

    monkeypatch.setattr(Learner, "objective", poisoned)
    settings = tiny.settings("ppo", ppo=PPO, rollout={"batch_size": 8, "max_new_tokens": 6})
    run = run_stage("ppo", settings, tmp_path)
    (event,) = [event for event in read_json_lines(run.dir.events) if event["kind"] == "went_back"]
    assert (event["step"], event["left_out"]) == (4, [6, 7, 8])
    rows = [event["rows"] for event in read_json_lines(run.dir.events) if event["kind"] == "step_left_out"]
    assert all("prompts.jsonl:" in str(name) for names in rows for name in names)  # type: ignore[attr-defined]
    assert run.manifest.result is not None
    assert run.manifest.result.steps == 12
    assert [row["iteration"] for row in metrics_of(run.dir)] == sorted(
        row["iteration"] for row in metrics_of(run.dir)
    )
    weights = load_file(run.dir.model / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())
