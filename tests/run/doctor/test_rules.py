"""The doctor: each rule fires on a series made to have its fault, none on healthy ones, each is told once."""

import math

import pytest

from rlhf_cli.run.doctor.diagnose import Doctor, diagnose
from rlhf_cli.run.doctor.history import History
from rlhf_cli.run.doctor.rules import RULES

NAMES = ("reward", "kl", "length", "entropy", "eos_rate", "clip_fraction", "explained_variance")
# What configs/quickstart/ppo.yaml measured with seed 1, rounded: one row per iteration.
QUICKSTART = (
    (-0.079, 0.0, 15.18, 0.513, 1.0, 0.022, -0.455),
    (0.238, 0.137, 13.25, 0.521, 1.0, 0.02, 0.295),
    (0.475, 0.302, 14.664, 0.446, 1.0, 0.035, 0.492),
    (0.494, 0.566, 12.344, 0.409, 1.0, 0.032, 0.593),
    (0.661, 0.965, 12.719, 0.324, 1.0, 0.016, 0.729),
    (0.987, 1.667, 12.531, 0.266, 1.0, 0.011, 0.662),
    (0.864, 1.785, 13.102, 0.225, 1.0, 0.011, 0.793),
    (1.075, 2.021, 13.258, 0.206, 1.0, 0.004, 0.778),
    (1.176, 2.07, 13.539, 0.205, 1.0, 0.011, 0.848),
    (1.137, 2.09, 13.375, 0.197, 1.0, 0.004, 0.816),
    (1.128, 2.299, 13.758, 0.196, 1.0, 0.006, 0.795),
    (1.142, 2.137, 14.055, 0.195, 1.0, 0.003, 0.793),
    (1.213, 2.565, 14.18, 0.188, 1.0, 0.003, 0.837),
    (1.182, 2.519, 14.094, 0.173, 1.0, 0.003, 0.827),
)


def healthy_ppo(count: int = 14) -> list[dict[str, float]]:
    """Give the first iterations of the quickstart's PPO."""
    return [dict(zip(NAMES, row, strict=True)) | {"value_loss": 0.1} for row in QUICKSTART[:count]]


def with_fault(**series: object) -> list[dict[str, float]]:
    """Replace metrics of the healthy run: a list value by value, a number from the middle on."""
    rows = healthy_ppo()
    for name, values in series.items():
        for i, row in enumerate(rows):
            if isinstance(values, list):
                row[name] = values[i]
            elif i >= len(rows) // 2:
                row[name] = float(values)  # type: ignore[arg-type]
    return rows


def rules_fired(stage: str, rows: list[dict[str, float]]) -> list[str]:
    return [finding.rule for finding in diagnose(stage, rows)]


PPO_FAULTS = {
    "kl_runs_away": with_fault(kl=80),
    "kl_is_negative": with_fault(kl=-3),
    "reward_hacks_length": with_fault(length=[15 + 30 * row[0] for row in QUICKSTART]),
    "entropy_collapses": with_fault(entropy=0.004),
    "critic_explains_nothing": with_fault(explained_variance=-0.02),
    "eos_disappears": with_fault(eos_rate=0.6),
    "clips_too_often": with_fault(clip_fraction=0.45),
    "reward_does_not_rise": with_fault(reward=[0.05] * 14),
}
ROW_FAULTS = {
    ("sft", "held_out_loss_rises"): [{"eval/loss": value} for value in (3.0, 2.0, 2.2, 2.4)],
    ("train-rm", "reward_model_is_guessing"): [{"eval/accuracy": value} for value in (0.5, 0.52, 0.51)],
    ("train-rm", "reward_model_overfits"): [
        row for _ in range(3) for row in ({"accuracy": 0.99}, {"eval/accuracy": 0.7})
    ],
    ("train-rm", "badly_calibrated"): [{"eval/calibration_error": value} for value in (0.1, 0.2, 0.24)],
    ("dpo", "both_answers_fall"): [{"chosen_logratio": value} for value in (-1.0, -30.0, -40.0, -50.0)],
}


@pytest.mark.parametrize(("rule", "rows"), PPO_FAULTS.items(), ids=list(PPO_FAULTS))
def test_each_fault_of_ppo_is_found_and_nothing_else(rule: str, rows: list[dict[str, float]]):
    assert rules_fired("ppo", rows) == [rule]


@pytest.mark.parametrize(("fault", "rows"), ROW_FAULTS.items(), ids=[name for _, name in ROW_FAULTS])
def test_each_fault_of_the_other_stages_is_found(fault: tuple[str, str], rows: list[dict[str, float]]):
    stage, rule = fault
    assert rules_fired(stage, rows) == [rule]


def test_every_rule_has_a_test():
    assert {rule.name for rule in RULES} == {*PPO_FAULTS, *(name for _, name in ROW_FAULTS)}


@pytest.mark.parametrize("count", range(15))
def test_a_healthy_run_hears_nothing_at_any_time(count: int):
    assert rules_fired("ppo", healthy_ppo(count)) == []


def test_one_odd_iteration_is_no_finding():
    for name, value in (("kl", 40.0), ("clip_fraction", 0.7), ("eos_rate", 0.2), ("entropy", 0.1)):
        rows = healthy_ppo()
        rows[-1][name] = value
        assert rules_fired("ppo", rows) == []


def test_a_length_that_was_asked_for_is_no_hack():
    rows = [row | {"score/length": 0.5} for row in PPO_FAULTS["reward_hacks_length"]]
    assert rules_fired("ppo", rows) == []


def test_a_run_without_a_critic_has_none_that_could_fail():
    rows = [
        {name: value for name, value in row.items() if name != "value_loss"}
        for row in PPO_FAULTS["critic_explains_nothing"]
    ]
    assert rules_fired("ppo", rows) == []


def test_an_iteration_counts_once_however_often_it_was_logged():
    """Eight lines of one bad iteration are one value; the mean of what differs between them is taken."""
    rows = healthy_ppo(4)
    rows += [{**rows[-1], "kl": 90.0, "clip_fraction": value} for value in (0.2, 0.4, 0.6)]
    history = History(rows)
    assert history.values("kl")[-2:] == [pytest.approx(rows[3]["kl"]), 90.0]
    assert history.values("clip_fraction")[-1] == pytest.approx(0.4)
    assert rules_fired("ppo", rows) == []


def test_nan_and_missing_metrics_say_nothing():
    assert rules_fired("ppo", [{"kl": math.nan, "loss": 1.0}] * 9) == []
    assert rules_fired("sft", []) == []
    assert rules_fired("collect", [{"kl": 100.0}] * 9) == []


def test_each_finding_names_a_key_of_the_stage_and_is_told_once():
    doctor = Doctor("ppo")
    told = [finding for row in PPO_FAULTS["kl_runs_away"] for finding in doctor.look(row)]
    assert [finding.rule for finding in told] == ["kl_runs_away"]
    assert told[0].text.endswith("Change ppo.kl.coef (higher), or set ppo.kl.target.")
    again = Doctor("ppo")
    again.remember(PPO_FAULTS["kl_runs_away"][:-1], ["kl_runs_away"])
    assert again.look(PPO_FAULTS["kl_runs_away"][-1]) == []
