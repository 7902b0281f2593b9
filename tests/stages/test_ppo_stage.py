"""PPO on a tiny model that has learnt to end its answers: rewards, ratios, divergence, critic."""

from pathlib import Path

import pytest
import torch
from tiny import Settings, Tiny, column, metrics_of, override, run_stage

from rlhf_cli.algo.ppo import adaptive_kl_coef
from rlhf_cli.config.sections import Ppo
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, DivergedError
from rlhf_cli.models.heads import load_reward_model
from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.reward.scorer import ScriptedScorer
from rlhf_cli.rollout import experience
from rlhf_cli.rollout.measured import Measured
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.stages import ppo

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LORA = {"rank": 4}


def test_the_reward_rises(settings: Settings, work: Path):
    more = override(
        settings,
        rollout={"batch_size": 24},
        ppo={"iterations": 8, "kl": {"coef": 0.0}},
        optim={"lr": 5e-3},
    )
    run = run_stage("ppo", more, work)
    rewards = column(run.dir, "score/share_of_e")
    first, last = rewards[:2], rewards[-4:]
    assert sum(last) / 4 > sum(first) / 2 + 0.03
    assert column(run.dir, "kl")[0] == pytest.approx(0.0, abs=1e-4)
    assert column(run.dir, "kl")[-1] > 0.05
    assert all(value > -0.02 for value in column(run.dir, "step_kl"))


def test_a_price_on_divergence_keeps_the_policy_near(settings: Settings, work: Path):
    ends = {}
    for coef in (0.0, 5.0):
        one = override(settings, ppo={"iterations": 6, "kl": {"coef": coef}}, optim={"lr": 5e-3})
        run = run_stage("ppo", one | {"run_dir": f"kl{coef}"}, work)
        ends[coef] = column(run.dir, "kl")[-1]
    assert ends[5.0] < ends[0.0]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_ratio_of_every_iteration_is_one(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch, lora: object, temperature: float
):
    monkeypatch.setattr(ppo, "_RATIO_TOLERANCE", 1e-5)
    one = override(settings, model={"lora": lora}, rollout={"temperature": temperature})
    one = override(one, ppo={"iterations": 3, "minibatches": 2}, train={"micro_tokens": 40})
    run = run_stage("ppo", one, work)
    firsts = [row for row in metrics_of(run.dir) if (row["step"] - 1) % 4 == 0]
    assert [row["clip_fraction"] for row in firsts] == [0.0, 0.0, 0.0]
    assert all(abs(row["step_kl"]) < 1e-6 for row in firsts)
    assert column(run.dir, "step_kl")[1] > 1e-6


def test_a_first_ratio_off_one_ends_the_run(settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ppo, "_RATIO_TOLERANCE", -1.0)
    with pytest.raises(DivergedError, match="first probability ratio") as caught:
        run_stage("ppo", settings, work)
    assert caught.value.exit_code == 76


def test_the_log_probs_of_sampling_are_those_of_training(
    settings: Settings, work: Path, monkeypatch: pytest.MonkeyPatch
):
    """Sampling and measuring are two pieces of code; both must see the same policy."""
    sampled, measured = [], []
    generate, measure = TransformersEngine.generate, experience.measure

    def keep_sampled(*arguments: object) -> object:
        completions = generate(*arguments)  # type: ignore[arg-type]
        sampled.extend(completion.logprobs for completion in completions)
        return completions

    def keep_measured(*arguments: object) -> Measured:
        result: Measured = measure(*arguments)
        measured.extend(row[mask].tolist() for row, mask in zip(result.logprobs, result.mask, strict=True))
        return result

    monkeypatch.setattr(TransformersEngine, "generate", keep_sampled)
    monkeypatch.setattr(experience, "measure", keep_measured)
    run_stage("ppo", override(settings, rollout={"temperature": 0.8}), work)
    assert len(sampled) == len(measured) == 16
    for one, other in zip(sampled, measured, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def episode(text: str, *, finished: bool) -> Episode:
    return Episode("p", (2,), (3, 0) if finished else (3, 4, 5, 6), text, finished, {})


def test_an_answer_without_an_end_gets_the_missing_eos_score():
    scorer = ScriptedScorer({"good": 2.0, "great": 40.0, "bad": -40.0})
    scoring = ppo.Scoring([(scorer, 0.5)], Ppo(missing_eos_score=-3.0), torch.device("cpu"))
    answers = [("good", True), ("good", False), ("great", True), ("bad", True)]
    scores, facts = scoring([episode(text, finished=finished) for text, finished in answers])
    assert scores.tolist() == [1.0, -3.0, 5.0, -5.0]
    correlation = facts.pop("length_correlation")
    assert facts == {"reward": -0.5, "eos_rate": 0.75, "length": 2.5, "score/scripted": 1.0}
    # scores minus their mean: 1.5, -2.5, 5.5, -4.5; lengths minus theirs: -0.5, 1.5, -0.5, -0.5
    assert correlation == pytest.approx(-5.0 / (59.0 * 3.0) ** 0.5)


def test_missing_ends_are_what_a_run_is_punished_for(tiny: Tiny, work: Path):
    """The untrained model hardly ever ends an answer of 6 tokens."""
    run = run_stage("ppo", tiny.settings("ppo", ppo__missing_eos_score=-2.5), work)
    eos_rate, reward, score = (column(run.dir, name)[0] for name in ("eos_rate", "reward", "score/regex"))
    assert eos_rate < 0.2
    assert reward == pytest.approx(-2.5 * (1 - eos_rate) + score * eos_rate, abs=0.2)


def test_the_kl_coefficient_follows_its_target(settings: Settings, work: Path):
    kl = {"coef": 0.2, "target": 0.02, "horizon": 40}
    run = run_stage("ppo", override(settings, ppo={"iterations": 5, "kl": kl}, optim={"lr": 5e-3}), work)
    coefs, kls = (column(run.dir, name)[::2] for name in ("kl_coef", "kl"))
    assert coefs[0] == 0.2
    for i in range(4):
        assert coefs[i + 1] == pytest.approx(adaptive_kl_coef(coefs[i], kls[i], 0.02, 40, 8))
    assert coefs[1] < coefs[0]  # no divergence yet
    assert max(coefs) > coefs[1]  # then too much


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_critic_made_from_the_reward_model_starts_with_its_scores(
    settings: Settings, upstream: Path, work: Path, monkeypatch: pytest.MonkeyPatch, lora: object
):
    seen: list[tuple[Measured, torch.Tensor]] = []
    measure = experience.measure

    def keep(actors, rows, cutter):
        ids = torch.tensor([rows[0].input_ids])
        measured = measure(actors, rows, cutter)
        with torch.no_grad():
            seen.append((measured, actors.critic({"input_ids": ids}, torch.arange(ids.shape[1]))))
        return measured

    monkeypatch.setattr(experience, "measure", keep)
    reward = [{"kind": "model", "path": str(upstream / "train-rm")}]
    one = override(settings, critic={"init": "reward"}, model={"lora": lora}) | {"reward": reward}
    run = run_stage("ppo", one, work)
    measured, values = seen[0]
    reward_model = load_reward_model(str(upstream / "train-rm"))
    model, scale = reward_model.loaded, reward_model.scale
    assert scale is not None
    ids = torch.tensor([measured.rows[0].input_ids])
    with torch.no_grad():
        score = float(model.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
    assert float(values[-1]) == pytest.approx((score - scale.mean) / scale.std, abs=1e-4)
    num_prompt = measured.rows[0].num_prompt
    before = values[num_prompt - 1 : -1]  # the value of a state is read before its token
    assert torch.allclose(measured.values[0, : len(before)], before, atol=1e-5)
    assert {parent.role for parent in run.manifest.parents} >= {"model", "reward"}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"kind": "regex", "pattern": "red|gold"}, "score/regex"),
        ({"kind": "length", "target": 5}, "score/length"),
        ({"kind": "model"}, "score/model"),
    ],
)
def test_each_kind_of_reward(
    settings: Settings, upstream: Path, work: Path, source: dict[str, object], name: str
):
    if source["kind"] == "model":
        source = source | {"path": str(upstream / "train-rm")}
    run = run_stage("ppo", settings | {"reward": [source | {"weight": 0.5}]}, work)
    finished = [row for row in metrics_of(run.dir) if row["eos_rate"] == 1.0]
    assert finished
    for row in finished:
        assert row["reward"] == pytest.approx(0.5 * row[name], abs=1e-5)


def test_rewards_add_up_under_their_weights(settings: Settings, work: Path):
    two = [
        {"kind": "regex", "pattern": "e", "weight": 2.0},
        {"kind": "regex", "pattern": "^it", "weight": -1.0},
    ]
    run = run_stage("ppo", settings | {"reward": two}, work)
    row = metrics_of(run.dir)[0]
    assert row["eos_rate"] == 1.0
    assert row["reward"] == pytest.approx(2 * row["score/regex"] - row["score/regex_2"])


def test_a_reward_of_nan_is_the_functions_fault(settings: Settings, upstream: Path, work: Path):
    function = {"kind": "function", "function": f"{upstream}/rewards.py:nan"}
    with pytest.raises(DataError, match="returned nan for the prompt"):
        run_stage("ppo", settings | {"reward": [function]}, work)


def test_the_reference_stays_where_it_was(settings: Settings, upstream: Path, work: Path):
    """KL after training, worked out from the two saved models on one sampled answer."""
    run = run_stage("ppo", override(settings, ppo={"iterations": 4}, optim={"lr": 5e-3}), work)
    assert column(run.dir, "kl")[-1] != pytest.approx(0.0, abs=1e-4)
    roles = {parent.role: parent.digest for parent in run.manifest.parents}
    assert roles["model"] == roles["reference"] == load_policy_for_sampling(str(upstream / "sft")).digest
