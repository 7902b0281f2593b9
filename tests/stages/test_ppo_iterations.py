"""How a PPO run walks through prompts, minibatches, evaluations and checkpoints."""

import json
import math
import os
import signal
from itertools import chain
from pathlib import Path

import pytest
from tiny import Settings, Tiny, column, metrics_of, override, run_stage, write_rows

from rlhf_cli.config.sections import Model
from rlhf_cli.config.stages import PpoConfig
from rlhf_cli.errors import Preempted
from rlhf_cli.models.load import load_vocabulary
from rlhf_cli.rollout import experience
from rlhf_cli.rollout.experience import Experience
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.stages import ppo


@pytest.mark.parametrize(
    ("limits", "num_prompts", "expected"),
    [
        ({}, 20, 3),  # one pass: 8 + 8 + 4
        ({"epochs": 2}, 20, 5),
        ({"max_steps": 12}, 20, 2),
        ({"max_steps": 13}, 20, 3),
        ({"iterations": 7}, 20, 7),
        ({"iterations": 7, "max_steps": 12}, 20, 2),
        ({"iterations": 1, "max_steps": 12}, 20, 1),
    ],
)
def test_the_number_of_iterations(limits: dict[str, int], num_prompts: int, expected: int):
    iterations = {key: value for key, value in limits.items() if key == "iterations"}
    config = PpoConfig.model_validate(
        {
            "run_dir": "x",
            "model": {"path": "m"},
            "data": {"train": [{"path": "p"}]},
            "reward": [{"kind": "regex", "pattern": "e"}],
            "critic": {"init": "policy"},
            "rollout": {"batch_size": 8},
            "train": {key: value for key, value in limits.items() if key != "iterations"},
            "ppo": {"epochs": 3, "minibatches": 2, **iterations},
        }
    )
    assert ppo.num_iterations(config, num_prompts) == expected


def test_every_prompt_has_its_turn(settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    draw = Experience._draw_prompts

    def keep(self: Experience) -> object:
        prompts, seeds = draw(self)
        drawn.append(([prompt.record.extra["place"] for prompt in prompts], seeds))
        return prompts, seeds

    monkeypatch.setattr(Experience, "_draw_prompts", keep)
    run_stage("ppo", override(settings, ppo={"iterations": 3}), work)
    places = [place for chosen, _ in drawn for place in chosen]
    assert sorted(places[:12]) == list(range(12)) == sorted(places[12:])
    assert places[:12] != places[12:]
    seeds = [seed for _, many in drawn for seed in many]
    assert len(set(seeds)) == 24


def test_minibatches_cover_every_answer_in_another_order(settings: Settings, work: Path, monkeypatch):
    seen = []
    cut_steps = experience.cut_steps

    def keep(*rest, minibatches, **options):
        parts = [list(part) for part in minibatches]
        seen.append(parts)
        return cut_steps(*rest, minibatches=parts, **options)

    monkeypatch.setattr(experience, "cut_steps", keep)
    run_stage("ppo", override(settings, ppo={"epochs": 2, "minibatches": 3}), work)
    for parts in seen:
        assert [len(part) for part in parts] == [3, 3, 2] * 2
        epochs = [list(chain(*parts[:3])), list(chain(*parts[3:]))]
        assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(8))
        assert epochs[0] != epochs[1]
    assert seen[0] != seen[1]


def test_evaluation_leaves_training_alone(settings: Settings, work: Path, tiny: Tiny):
    held_out = {"data": {**settings["data"], "eval": [{"path": tiny.prompts, "limit": 3}]}}
    with_eval = run_stage("ppo", settings | held_out | {"eval": {"every_steps": 1}}, work)
    plain = run_stage("ppo", settings | {"run_dir": "plain"}, work)
    for name in ("loss", "reward", "kl"):
        assert column(with_eval.dir, name) == column(plain.dir, name)
    # Boundaries are after 2 and 4 steps: in between, an interruption could not be saved.
    assert [row["step"] for row in metrics_of(with_eval.dir) if "eval/reward" in row] == [0, 2, 4]


@pytest.mark.parametrize("where", ["sampling", "minibatch", "evaluation"])
def test_an_interrupted_run_ends_like_a_straight_one(
    settings: Settings, work: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, where: str
):
    kl = {"coef": 0.2, "target": 0.02, "horizon": 40}
    held_out = {"eval": [{"path": tiny.prompts, "limit": 3}]}
    more = override(settings, ppo={"iterations": 4, "minibatches": 2, "kl": kl}, data=held_out)
    more = override(more, checkpoint={"every_steps": 100}, eval={"every_steps": 5})
    straight = run_stage("ppo", more | {"run_dir": "straight"}, work)
    generate, objective, calls = TransformersEngine.generate, ppo.Learner.objective, []

    def interrupted_generate(engine: TransformersEngine, *request: object) -> object:
        calls.append("sampling" if len(request[0]) == 8 else "evaluation")
        if where != "minibatch" and calls.count(where) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(engine, *request)

    def interrupted_objective(learner: ppo.Learner, batch: object) -> object:
        calls.append("minibatch")
        if where == "minibatch" and calls.count(where) == 12:  # policy and critic, in each of 6 steps
            os.kill(os.getpid(), signal.SIGTERM)
        return objective(learner, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", interrupted_generate)
        patch.setattr(ppo.Learner, "objective", interrupted_objective)
        step = {"sampling": 4, "minibatch": 8, "evaluation": 8}[where]
        with pytest.raises(Preempted, match=f"after step {step}, checkpoint saved"):
            run_stage("ppo", more, work)
    run = run_stage("ppo", more, work)
    weights = [(r.dir.model / "model.safetensors").read_bytes() for r in (run, straight)]
    assert weights[0] == weights[1]
    assert metrics_of(run.dir) == metrics_of(straight.dir)


def test_facts_that_are_not_numbers_survive_a_checkpoint(settings: Settings, work: Path):
    run = run_stage("ppo", settings, work)
    state = json.loads((run.dir.checkpoints / "step-000004" / "state.json").read_text())
    assert state["source"]["iteration"] == 2
    assert float.fromhex(state["source"]["kl_coef"]) == 0.05
    assert all(math.isfinite(value) for value in state["source"]["facts"].values())


def test_prompts_leave_room_for_the_answer(settings: Settings, tiny: Tiny, work: Path):
    long = "Color of the fox " * 30
    rows = [{"prompt": "Color of the fox: ", "place": 1}, {"prompt": long, "place": 2}]
    path = write_rows(work / "long.jsonl", rows)
    run = run_stage("ppo", settings | {"data": {"train": [{"path": path}], "max_length": 64}}, work)
    [report] = json.loads(run.dir.data_report.read_text())
    assert (report["rows_read"], report["rows_kept"]) == (2, 1)
    tokenizer = load_vocabulary(Model(path=tiny.model)).tokenizer
    assert len(tokenizer(long)["input_ids"]) > 64 - 12
