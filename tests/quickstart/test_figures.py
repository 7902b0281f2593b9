"""Figures, samples and promises from answers graded by hand."""

from dataclasses import replace

import pytest
from graded import answer, answers, results, row

from rlhf_cli.quickstart.figures import Sample, choose_samples, figures_by_model, summarise
from rlhf_cli.quickstart.gates import check_gates


def test_means_over_the_answers():
    figures = summarise(
        [
            answer(0.5, text="one two", reward=1.0, log_ratio=3.0, fact=0.0),
            answer(1.0, text="", finished=False, reward=-2.0, log_ratio=-1.0, fact=0.5),
        ],
        None,
    )
    assert (figures.gold, figures.parts, figures.reward) == (0.75, {"fact": 0.25, "form": 1.0}, -0.5)
    assert (figures.kl, figures.words, figures.eos_rate) == (1.0, 1.0, 0.5)
    assert figures.win_rate is None
    assert figures.win_interval is None


def test_greedy_answers_have_no_kl():
    assert summarise(answers(0.5), None).kl is None


def test_wins_count_ties_half_and_carry_their_wilson_interval():
    rivals = answers(0.5, 0.5, 0.5, 0.5)
    figures = summarise(answers(0.7, 0.7, 0.5001, 0.2), rivals)
    assert figures.win_rate == 0.625
    # p = 5/8, n = 4, z^2 = 3.8415: (p + z^2/8 -+ z sqrt(p(1-p)/4 + z^2/64)) / (1 + z^2/4)
    assert figures.win_interval == pytest.approx((0.2194, 0.9081), abs=1e-4)


def test_every_model_is_compared_with_sft():
    figures = figures_by_model({"sft": answers(0.5), "dpo": answers(0.9), "ppo": answers(0.1)})
    assert [row.win_rate for row in figures.values()] == [None, 1.0, 0.0]


def test_samples_are_the_largest_and_median_gain_and_the_worst_of_each():
    chosen = choose_samples(
        {
            "sft": answers(0.5, 0.5, 0.5, 0.5, 0.5),
            "dpo": answers(0.6, 0.5, 0.1, 0.7, 0.9),
            "ppo": answers(0.6, 0.2, 0.4, 0.7, 0.9),
        }
    )
    assert chosen == [
        Sample(4, "the largest gain", ()),
        Sample(0, "the median gain", ()),
        Sample(2, "the worst of DPO", ("dpo", "ppo")),
        Sample(1, "the worst of PPO", ("ppo",)),
    ]


def test_one_request_can_be_shown_for_several_reasons():
    chosen = choose_samples({"sft": answers(0.9), "dpo": answers(0.8), "ppo": answers(0.7)})
    assert chosen == [Sample(0, "the median gain, the worst of DPO, the worst of PPO", ("dpo", "ppo"))]


def test_without_failures_none_is_shown():
    chosen = choose_samples({"sft": answers(0.5, 0.5), "dpo": answers(0.5, 0.8), "ppo": answers(0.5, 0.5)})
    assert [sample.failed for sample in chosen] == [(), ()]


def test_kept_promises():
    gates = check_gates(results())
    assert [gate.ok for gate in gates] == [True] * 6
    assert [gate.figures for gate in gates] == [
        "DPO +0.200, PPO +0.300",
        "DPO +0.050, PPO +0.000",
        "DPO concise +0.000, PPO concise +0.000",
        "DPO 1.000, PPO 1.000",
        "PPO 4.00",
        "RM 0.800",
    ]


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        (results(gain=0.1), None),  # 0.6 + 0.1 is a little less than 0.7
        (results(gain=0.0999), 0),
        (replace(results(), greedy=results().greedy | {"dpo": row(0.799)}), 1),
        (replace(results(), greedy=results().greedy | {"ppo": row(0.8, courtesy=0.35)}), None),
        (replace(results(), greedy=results().greedy | {"ppo": row(0.8, courtesy=0.34)}), 2),
        (replace(results(), sampled=results().sampled | {"dpo": row(0.8, kl=2.0, form=0.8)}), 2),
        (replace(results(), sampled=results().sampled | {"dpo": row(0.8, kl=2.0, eos_rate=0.979)}), 3),
        (replace(results(), greedy=results().greedy | {"ppo": row(0.8, eos_rate=0.979)}), 3),
        (results(kl=10.0), 4),
        (results(kl=None), 4),
        (results(rm_accuracy=0.749), 5),
        (results(rm_accuracy=None), 5),
        (results(rm_accuracy=0.75), None),
    ],
)
def test_each_promise_can_be_missed(changed, missed):
    assert [number for number, gate in enumerate(check_gates(changed)) if not gate.ok] == (
        [] if missed is None else [missed]
    )


def test_the_worst_part_is_named():
    changed = replace(results(), greedy=results().greedy | {"ppo": row(0.8, courtesy=0.3, fact=0.45)})
    assert check_gates(changed)[2].figures == "DPO concise +0.000, PPO courtesy -0.100"
