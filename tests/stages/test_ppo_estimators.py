"""PPO without a critic, and with one that is a head on the policy."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny import Settings, column, metrics_of, override, run_stage, spec_of
from transformers import LlamaForCausalLM

from rlhf_cli.errors import ConfigError
from rlhf_cli.models import actor_critic
from rlhf_cli.rollout import experience
from rlhf_cli.rollout.experience import Experience
from rlhf_cli.rollout.measured import Cutter
from rlhf_cli.stages import ppo

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CRITIC_FREE = ["rloo", "grpo", "reinforce++"]
TRUNK = {"share": "trunk"}


def without_critic(settings: Settings, estimator: str, **rollout: object) -> Settings:
    """Answer 4 prompts 4 times each, without a word about a critic."""
    groups = {"batch_size": 16, "samples_per_prompt": 4} | rollout
    told = override(settings, ppo={"advantage": estimator}, rollout=groups)
    return {name: section for name, section in told.items() if name != "critic"}


@pytest.mark.parametrize("estimator", CRITIC_FREE)
def test_no_critic_is_loaded_and_the_reward_rises(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, estimator: str
):
    monkeypatch.setattr(actor_critic, "open_critic", None)  # calling it would fail
    monkeypatch.setattr(ppo, "_RATIO_TOLERANCE", 1e-5)
    one = without_critic(settings, estimator, batch_size=24)
    more = override(one, ppo={"iterations": 8, "kl": {"coef": 0.0}}, optim={"lr": 5e-3})
    run = run_stage("ppo", more, work)
    rewards = column(run.dir, "score/share_of_e")
    assert sum(rewards[-4:]) / 4 > sum(rewards[:2]) / 2 + 0.02
    assert not [name for name in metrics_of(run.dir)[0] if "value" in name or "critic" in name]
    assert column(run.dir, "clip_fraction")[0] == 0.0


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("rloo", [-4.0, 0.0, 4.0, 2.0, -1.0, -1.0]),
        ("grpo", [-1.0, 0.0, 1.0, 1.154700, -0.577350, -0.577350]),
    ],
)
def test_answers_are_compared_with_the_others_to_their_prompt(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, estimator: str, expected: list[float]
):
    """Worked by hand from scores 0, 8/3, 16/3 and 3, 1, 1 of two prompts, without a price on divergence."""
    scores = torch.tensor([0.0, 8 / 3, 16 / 3, 3.0, 1.0, 1.0])
    seen = []
    cut_steps = experience.cut_steps

    def keep(measured, estimate, **options):
        seen.append((measured, estimate))
        return cut_steps(measured, estimate, **options)

    monkeypatch.setattr(experience, "cut_steps", keep)
    monkeypatch.setattr(ppo.Scoring, "__call__", lambda *_: (scores, {}))
    one = without_critic(settings, estimator, batch_size=6, samples_per_prompt=3)
    run_stage("ppo", override(one, ppo={"iterations": 1, "kl": {"coef": 0.0}}), work)
    [(measured, estimate)] = seen
    assert estimate.returns is None
    for row, mask, value in zip(estimate.advantages, measured.mask, expected, strict=True):
        assert row[mask].tolist() == pytest.approx([value] * int(mask.sum()), abs=1e-5)
        assert not row[~mask].any()


def test_grpo_charges_divergence_in_the_loss(settings: Settings, work: Path):
    """With equal rewards nothing but the price on divergence is left; it moves nothing at first."""
    one = without_critic(settings, "grpo") | {"reward": [{"kind": "regex", "pattern": "^"}]}
    run = run_stage("ppo", override(one, ppo={"kl": {"coef": 0.5}, "iterations": 1}), work)
    assert column(run.dir, "loss")[0] == pytest.approx(0.0, abs=1e-6)
    policy = without_critic(settings, "grpo") | {"run_dir": "moved"}
    moved = run_stage(
        "ppo", override(policy, ppo={"kl": {"coef": 5.0}, "epochs": 3}, optim={"lr": 1e-2}), work
    )
    rows = metrics_of(moved.dir)
    assert rows[-1]["loss"] - rows[-1]["policy_loss"] > 1e-3


def test_each_prompt_is_answered_several_times(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn, cut = [], []
    draw, split = Experience._draw_prompts, Cutter.cut

    def keep_drawn(self: Experience) -> object:
        prompts, seeds = draw(self)
        drawn.append(([prompt.record.extra["place"] for prompt in prompts], seeds))
        return prompts, seeds

    def keep_cut(self: Cutter, rows, indices):
        parts = split(self, rows, indices)
        cut.append((sorted(indices), parts))
        return parts

    monkeypatch.setattr(Experience, "_draw_prompts", keep_drawn)
    monkeypatch.setattr(Cutter, "cut", keep_cut)
    one = without_critic(settings, "rloo")
    run_stage(
        "ppo", override(one, ppo={"iterations": 3, "minibatches": 2}, train={"micro_tokens": 10_000}), work
    )
    places = [place for chosen, _ in drawn for place in chosen]
    assert [places[k : k + 4] for k in range(0, 48, 4)] == [[place] * 4 for place in places[::4]]
    assert sorted(places[::4]) == list(range(12))
    assert len({seed for _, seeds in drawn for seed in seeds}) == 48
    for indices, parts in cut:
        assert sorted(i for part in parts for i in part) == indices
        assert set(Counter(i // 4 for i in indices).values()) == {4}


@pytest.mark.parametrize("estimator", ["rloo", "trunk"])
def test_packed_and_padded_rows_train_the_same_policy(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, estimator: str
):
    one = without_critic(settings, "rloo") if estimator == "rloo" else settings | {"critic": TRUNK}
    packed = run_stage("ppo", one | {"run_dir": "packed"}, work)
    monkeypatch.setattr("rlhf_cli.stages.layout.allow_packing", lambda _: "of this test")
    padded = run_stage("ppo", one | {"run_dir": "padded"}, work)
    for name in ("loss", "reward", "kl", "grad_norm" if estimator == "rloo" else "grad_norm/critic"):
        assert column(packed.dir, name) == pytest.approx(column(padded.dir, name), abs=1e-4)


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["full", "lora"])
def test_a_critic_on_the_trunk_learns_the_returns(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, lora: object
):
    monkeypatch.setattr(ppo, "_RATIO_TOLERANCE", 1e-5)
    one = override(
        settings, model={"lora": lora}, optim={"lr": 5e-3}, ppo={"iterations": 8, "value_coef": 1.0}
    )
    run = run_stage("ppo", one | {"critic": TRUNK | {"lr": 2e-2}}, work)
    losses = column(run.dir, "value_loss")
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert column(run.dir, "clip_fraction")[0] == 0.0
    model = LlamaForCausalLM.from_pretrained(run.dir.model)
    assert not [name for name, _ in model.named_parameters() if "score" in name]


@pytest.mark.parametrize("case", [*CRITIC_FREE, "trunk"])
def test_an_interrupted_run_goes_on_exactly(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, case: str
):
    one = settings | {"critic": TRUNK} if case == "trunk" else without_critic(settings, case)
    one = override(one, ppo={"iterations": 3, "minibatches": 2}, checkpoint={"every_steps": 4})
    straight = run_stage("ppo", one | {"run_dir": "straight"}, work)
    objective, calls = ppo.Learner.objective, []

    def broken(learner: ppo.Learner, batch: object) -> object:
        calls.append(batch)
        if len(calls) > 9:
            raise KeyboardInterrupt
        return objective(learner, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ppo.Learner, "objective", broken)
        with pytest.raises(KeyboardInterrupt):
            run_stage("ppo", one, work)
    run = run_stage("ppo", one, work)
    weights = [(r.dir.model / "model.safetensors").read_bytes() for r in (run, straight)]
    assert weights[0] == weights[1]
    assert metrics_of(run.dir) == metrics_of(straight.dir)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ppo": {"advantage": "rloo"}}, "compares the answers to a prompt"),
        ({"ppo": {"advantage": "grpo"}}, "samples_per_prompt: 4"),
        ({"rollout": {"samples_per_prompt": 3}}, "not a multiple of rollout.samples_per_prompt = 3"),
        ({"rollout": {"samples_per_prompt": 4}, "ppo": {"minibatches": 3}}, "more than the 2 prompts"),
    ],
)
def test_settings_that_do_not_fit_together(settings: Settings, work: Path, changes: Settings, says: str):
    with pytest.raises(ConfigError) as caught:
        spec_of("ppo", override(settings, **changes), work)
    assert says in str(caught.value)
