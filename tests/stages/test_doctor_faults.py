"""Each rule of the doctor on a real run that is made to have its fault."""

from pathlib import Path

import pytest
from tiny import ANSWERS, PROMPTS, WRONG, Settings, Tiny, override, rules_told, run_stage, write_rows

from rlhf_cli.run.doctor.rules import RULES

pytestmark = pytest.mark.slow

MORE = {"batch_size": 24}
FREE = {"iterations": 7, "kl": {"coef": 0.0}}


def test_updates_far_too_large_leave_the_reference_and_one_answer(settings: Settings, work: Path):
    wild = override(
        settings, optim={"lr": 0.05, "clip_norm": 100.0}, ppo=FREE | {"iterations": 6, "epochs": 3}
    )
    assert {"kl_runs_away", "entropy_collapses"} <= set(rules_told(run_stage("ppo", wild, work)))


def test_many_passes_over_few_answers_clip(settings: Settings, work: Path):
    greedy = override(settings, optim={"lr": 0.01}, ppo=FREE | {"epochs": 12}, rollout=MORE)
    assert "clips_too_often" in rules_told(run_stage("ppo", greedy, work))


def test_a_reward_for_length_is_seen_through(settings: Settings, work: Path):
    (work / "rewards.py").write_text(
        "def longer(prompt, completion, extra):\n    return len(completion) / 40\n"
    )
    reward = {"kind": "function", "function": f"{work}/rewards.py:longer"}
    ppo = FREE | {"iterations": 10, "minibatches": 2, "missing_eos_score": 1.0}
    long = override(settings, rollout=MORE | {"max_new_tokens": 40}, optim={"lr": 5e-3}, ppo=ppo)
    assert "reward_hacks_length" in rules_told(run_stage("ppo", long | {"reward": [reward]}, work))


def test_a_reward_that_is_the_same_for_all_answers_does_not_rise(settings: Settings, work: Path):
    same = override(settings, ppo={"iterations": 10, "missing_eos_score": 1.0})
    reward = {"kind": "regex", "pattern": "(?s).*"}
    assert "reward_does_not_rise" in rules_told(run_stage("ppo", same | {"reward": [reward]}, work))


def test_a_critic_that_hardly_learns_explains_nothing(settings: Settings, work: Path):
    lame = override(settings, critic={"lr": 1e-9}, ppo={"iterations": 6}, rollout=MORE)
    assert "critic_explains_nothing" in rules_told(run_stage("ppo", lame, work))


def test_answers_that_hardly_ever_end(tiny: Tiny, work: Path):
    """The untrained model knows no EOS."""
    run = run_stage("ppo", tiny.settings("ppo", ppo__iterations=4, optim__lr=1e-6), work)
    assert "eos_disappears" in rules_told(run)


def test_many_passes_over_few_demonstrations_are_learnt_by_heart(tiny: Tiny, work: Path):
    changes = {"optim__lr": 0.02, "train__max_steps": 60, "eval": {"every_steps": 10}}
    run = run_stage("sft", tiny.settings("sft", data__eval_fraction=0.3, **changes), work)
    assert rules_told(run) == ["held_out_loss_rises"]


def contradictions(work: Path) -> str:
    """Write each pair both ways round: nobody ranks more than half of them right."""
    pairs = [*zip(PROMPTS, ANSWERS, WRONG, strict=True), *zip(PROMPTS, WRONG, ANSWERS, strict=True)]
    rows = [{"prompt": prompt, "chosen": one, "rejected": other} for prompt, one, other in pairs]
    return write_rows(work / "contradictions.jsonl", rows)


def test_votes_that_contradict_each_other_are_guessed(tiny: Tiny, work: Path):
    changes = {"train__max_steps": 12, "eval": {"every_steps": 4}, "data__eval_fraction": 0.3}
    settings = tiny.settings("train-rm", data__train=[{"path": contradictions(work)}], **changes)
    assert rules_told(run_stage("train-rm", settings, work)) == ["reward_model_is_guessing"]


def test_a_reward_model_sure_of_what_others_deny_overfits_and_is_badly_calibrated(tiny: Tiny, work: Path):
    changes = {"train__max_steps": 30, "eval": {"every_steps": 8}, "optim__lr": 0.01}
    settings = tiny.settings("train-rm", data__eval=[{"path": contradictions(work)}], **changes)
    told = rules_told(run_stage("train-rm", settings, work))
    assert {"reward_model_overfits", "badly_calibrated"} <= set(told)


def test_a_loss_that_pushes_both_answers_down_makes_them_unlikely(tiny: Tiny, upstream: Path, work: Path):
    """`apo_down` lowers chosen answers on purpose; with so small a beta nothing holds it."""
    changes = {"loss": {"type": "apo_down", "beta": 0.02}, "optim__lr": 0.02, "train__max_steps": 12}
    settings = tiny.settings("dpo", model__path=str(upstream / "sft"), **changes)
    assert rules_told(run_stage("dpo", settings, work)) == ["both_answers_fall"]


def test_every_rule_has_its_run():
    files = (Path(__file__), Path(__file__).parents[1] / "rollout" / "test_stale_server.py")
    text = "".join(file.read_text() for file in files)
    assert [rule.name for rule in RULES if f'"{rule.name}"' not in text] == []
