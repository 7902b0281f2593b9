"""A judge's figures against people's, each worked out by hand."""

import pytest

from rlhf_cli.preference.ballots import Winner
from rlhf_cli.preference.judge.calibration import Calibration, Labelled, calibrate, demands, may_stand_in
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.verdict import Judgement, Reading

THRESHOLDS = {
    "min_pairs": 4,
    "max_error_rate": 0.1,
    "max_flip_rate": 0.3,
    "min_over_longest": 0.0,
    "max_below_people": 0.05,
    "max_length_excess": 0.1,
}
LONG, SHORT = "a long answer", "short"


def pair(number: int, *people: Winner, longer: str = "1") -> Labelled:
    texts = (LONG, SHORT) if longer == "1" else (SHORT, LONG)
    return Labelled(Case(number, f"prompt {number}", texts), people, number)


def verdict(winner: str, *, flipped: bool | None = None) -> Judgement:
    if flipped is None:
        return Judgement(winner, None, "", 0.0)  # type: ignore[arg-type]
    sides = ("first", "first") if flipped else ("first", "second")
    readings = tuple((first, Reading(side, 0.5, False)) for first, side in zip((1, 2), sides, strict=True))  # type: ignore[arg-type]
    return Judgement(winner, None, "", 0.0, readings)  # type: ignore[arg-type]


def test_agreement_counts_a_tie_half_and_an_error_as_wrong():
    found = [
        (pair(1, "1"), verdict("1")),
        (pair(2, "2"), verdict("tie")),
        (pair(3, "1"), verdict("error")),
        (pair(4, "2"), verdict("1")),
        (pair(5, "tie"), verdict("1")),
    ]
    figures = calibrate(found)
    assert (figures.num_pairs, figures.num_decided) == (5, 4)
    assert figures.agreement == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert figures.error_rate == pytest.approx(1 / 5)
    assert figures.tie_rate == pytest.approx(1 / 4)
    assert figures.flip_rate is None


def test_kappa_is_cohens_over_first_second_and_tie():
    told = [("1", "1")] * 4 + [("2", "2")] * 3 + [("1", "2")] * 2 + [("tie", "tie")]
    figures = calibrate([(pair(i, people), verdict(judge)) for i, (people, judge) in enumerate(told)])  # type: ignore[arg-type]
    # p_o = 8/10; people 6, 3, 1, judge 4, 5, 1: p_e = (6*4 + 3*5 + 1*1) / 100 = 0.40
    assert figures.kappa == pytest.approx((0.8 - 0.4) / (1 - 0.4))
    assert figures.kappa_interval is not None
    assert figures.kappa_interval[0] < figures.kappa < figures.kappa_interval[1]


def test_the_longest_answer_is_a_judge_that_reads_nothing():
    found = [
        (pair(1, "1"), verdict("1")),
        (pair(2, "1", longer="2"), verdict("2")),
        (pair(3, "1"), verdict("2")),
    ]
    even = Labelled(Case(4, "p", ("same", "size")), ("1",), 4)
    figures = calibrate([*found, (even, verdict("1"))])
    assert figures.longest == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert figures.longer_people == pytest.approx(2 / 3)
    assert figures.longer_judge == pytest.approx(2 / 3)


def test_people_are_held_against_each_other_as_the_judge_is_against_them():
    # 1 1 2: of the ordered pairs of votes two agree and four do not; 1 and a tie: one half
    figures = calibrate([(pair(1, "1", "1", "2"), verdict("1")), (pair(2, "1", "tie"), verdict("1"))])
    assert figures.people == pytest.approx((2 * 1 + 4 * 0 + 0.5) / 7)
    assert calibrate([(pair(1, "1"), verdict("1"))]).people is None


def test_flips_are_counted_among_pairs_asked_both_ways():
    found = [
        (pair(1, "1"), verdict("tie", flipped=True)),
        (pair(2, "1"), verdict("1", flipped=False)),
        (pair(3, "1"), verdict("1", flipped=False)),
        (pair(4, "1"), verdict("1")),
    ]
    assert calibrate(found).flip_rate == pytest.approx(1 / 3)


def good() -> list[tuple[Labelled, Judgement]]:
    winners: list[Winner] = ["1", "2", "1", "2", "1", "2"]
    return [
        (pair(i, it, longer="1" if i % 3 else "2"), verdict(it, flipped=False))
        for i, it in enumerate(winners)
    ]


def test_a_judge_that_agrees_may_stand_in_though_people_were_not_compared():
    found = demands(calibrate(good()), THRESHOLDS)
    assert [demand.met for demand in found] == [True, True, True, True, None, True]
    assert may_stand_in(found)


@pytest.mark.parametrize(
    ("spoiled", "index"),
    [
        ([(pair(i, "1"), verdict("error")) for i in range(3)], 1),
        ([(pair(i, "1"), verdict("1", flipped=True)) for i in range(5)], 2),
        ([(pair(i, "1"), verdict("2", flipped=False)) for i in range(6)], 3),
        ([(pair(i, "1", "1", "1"), verdict("2", flipped=False)) for i in range(2)], 4),
        ([(pair(i, "2"), verdict("1", flipped=False)) for i in range(4)], 5),
    ],
)
def test_each_demand_alone_is_a_no_go(spoiled: list[tuple[Labelled, Judgement]], index: int):
    found = demands(calibrate([*good(), *spoiled]), THRESHOLDS)
    assert found[index].met is False
    assert not may_stand_in(found)


def test_too_few_pairs_and_an_equal_to_longest_are_a_no_go():
    assert not may_stand_in(demands(calibrate(good()[:3]), THRESHOLDS))
    longest = [(pair(i, "1"), verdict("1", flipped=False)) for i in range(9)]
    told = demands(calibrate(longest), THRESHOLDS)
    assert told[3].met is False
    assert "0.0%, more than 0.0%" in told[3].words


def test_nothing_to_measure_is_said_and_not_passed():
    figures = calibrate([])
    assert isinstance(figures, Calibration)
    assert figures.kappa is None
    assert not may_stand_in(demands(figures, THRESHOLDS))
