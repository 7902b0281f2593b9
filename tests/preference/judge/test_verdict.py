"""What counts as a verdict, and what two of them amount to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.preference.judge.chat import ChatReply
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.judge.verdict import Judgement, Reading, Unreadable, combine, read_reply
from rlhf_cli.preference.judge.wire import label_mass, label_token

LABEL, EXPLAIN = load_template("label"), load_template("explain")


def read(text: str, template=LABEL, told=None) -> Reading | Unreadable:
    return read_reply(ChatReply(text, label_probabilities=told), template, min_label_mass=0.2)


@pytest.mark.parametrize(
    "text", ["A", " A\n", "**A**", "(A)", "A.", "`A`", "<think>B or A? B!</think>\nA", "B</think>A"]
)
def test_a_lone_letter_is_a_verdict(text: str):
    assert read(text) == Reading("first", 0.5, is_probability=False)


@pytest.mark.parametrize(
    "text",
    ["", " ", "AB", "A or B", "Answer A", "a", "C", "A better question: B", "<think>A", "TIE", "\x00A"],
)
def test_anything_else_is_no_verdict(text: str):
    assert isinstance(read(text), Unreadable)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("A is fine. <verdict>B</verdict>", "second"),
        ("<verdict> A </verdict>", "first"),
        ("<verdict>TIE</verdict>", "tie"),
        ("So: <verdict>A</verdict>\nAs I said: <verdict>A</verdict>.", "first"),
        ("<think><verdict>B</verdict></think><verdict>A</verdict>", "first"),
    ],
)
def test_a_verdict_stands_in_its_tags(text: str, side: str):
    reading = read(text, EXPLAIN)
    assert isinstance(reading, Reading)
    assert reading.side == side


@pytest.mark.parametrize(
    "text",
    [
        "A is clearly better.",
        "<verdict>A</verdict> or <verdict>B</verdict>",
        "<verdict>C</verdict>",
        "<verdict>A",
        "<verdict></verdict>",
        "<verdict>A or B</verdict>",
        "[[A]]",
        "<think>A. <verdict>A</verdict>",
    ],
)
def test_none_or_conflicting_verdicts_are_none(text: str):
    assert isinstance(read(text, EXPLAIN), Unreadable)
    assert isinstance(read(text, EXPLAIN, {"A": 0.9, "B": 0.0, "TIE": 0.0}), Unreadable)


def test_probabilities_win_over_words():
    # 0.6 / (0.6 + 0.2) - 0.5
    assert read("B", told={"A": 0.6, "B": 0.2}) == Reading("first", pytest.approx(0.25), is_probability=True)
    assert read("A", told={"A": 0.3, "B": 0.3}) == Reading("tie", 0.0, is_probability=True)
    told = {"A": 0.1, "B": 0.2, "TIE": 0.5}
    # (0.1 - 0.2) / (2 * 0.8)
    tie = read("<verdict>TIE</verdict>", EXPLAIN, told)
    assert tie == Reading("tie", pytest.approx(-0.0625), is_probability=True)


@pytest.mark.parametrize("told", [{"A": 0.1, "B": 0.05}, {"A": 0.0, "B": 0.0}, {"A": math.nan, "B": 0.9}, {}])
def test_too_little_label_mass_is_no_verdict(told):
    assert isinstance(read("A", told=told), Unreadable)


def test_spellings_are_summed_and_a_missing_label_is_bounded():
    mass = label_mass([("A", math.log(0.5)), (" A", math.log(0.2)), ("The", math.log(0.1))], ("A", "B"))
    # B has at most the least listed, 0.1, though 0.2 are left over
    assert mass == pytest.approx({"A": 0.7, "B": 0.1})
    assert label_mass([("A", math.log(0.98)), ("x", math.log(0.015))], ("A", "B")) == pytest.approx(
        {"A": 0.98, "B": 0.005}
    )
    assert label_mass([("The", -0.1)], ("A", "B")) == {"A": 0.0, "B": 0.0}
    assert label_mass([("T", math.log(0.9)), ("A", math.log(0.1))], ("A", "B", "TIE")) == pytest.approx(
        {"A": 0.1, "B": 0.0, "TIE": 0.9}
    )


@pytest.mark.parametrize(
    ("tokens", "prefix", "place"),
    [
        (["A"], "", 0),
        (["\n", " A"], "", 1),
        (["Hm", "<ver", "dict>", "A", "</verdict>"], "<verdict>", 3),
        (["<verdict>", " ", "B"], "<verdict>", 2),
        (["<verdict>", "A", "</verdict>", "<verdict>", "B"], "<verdict>", 4),
        (["<verdict", ">A", "</verdict>"], "<verdict>", None),
        (["no", " verdict"], "<verdict>", None),
        (["<verdict>"], "<verdict>", None),
        ([], "", None),
    ],
)
def test_the_label_is_found_among_the_tokens(tokens: list[str], prefix: str, place: int | None):
    assert label_token(tokens, prefix) == place


def word(side: str) -> Reading:
    return Reading(side, {"first": 0.5, "second": -0.5, "tie": 0.0}[side], is_probability=False)


def join(*readings: tuple[int, Reading], margin: float = 0.1, clamp: float = 0.0) -> Judgement:
    return combine(readings, tie_margin=margin, clamp=clamp, seconds=0.0)


@pytest.mark.parametrize(
    ("one", "two", "winner", "flipped"),
    [
        ("first", "second", "1", False),
        ("second", "first", "2", False),
        ("first", "first", "tie", True),
        ("second", "second", "tie", True),
        ("tie", "tie", "tie", False),
        ("first", "tie", "tie", True),
    ],
)
def test_both_orders_must_agree(one: str, two: str, winner: str, flipped: bool):
    judged = join((1, word(one)), (2, word(two)))
    assert (judged.winner, judged.flipped, judged.p_first_response) == (winner, flipped, None)


def test_probabilities_of_both_orders_are_averaged():
    judged = join(
        (1, Reading("first", 0.4, is_probability=True)), (2, Reading("second", -0.1, is_probability=True))
    )
    # response 1: 0.9 shown first, 0.6 shown second
    assert (judged.winner, judged.p_first_response) == ("1", pytest.approx(0.75))
    close = join(
        (1, Reading("first", 0.1, is_probability=True)), (2, Reading("second", -0.05, is_probability=True))
    )
    assert (close.winner, close.p_first_response) == ("tie", pytest.approx(0.575))
    clamped = join((1, Reading("first", 0.5, is_probability=True)), margin=0.0, clamp=0.4)
    assert (clamped.winner, clamped.p_first_response) == ("1", pytest.approx(0.6))


@given(
    leans=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    margin=st.floats(0, 0.5, exclude_max=True),
    clamp=st.floats(0, 0.5, exclude_max=True),
)
def test_naming_the_responses_otherwise_flips_the_judgement(leans, margin, clamp):
    def reading(lean):
        side = "first" if lean > 0 else "second" if lean < 0 else "tie"
        return Reading(side, lean, is_probability=True)

    one, two = map(reading, leans)
    judged = join((1, one), (2, two), margin=margin, clamp=clamp)
    other = join((2, one), (1, two), margin=margin, clamp=clamp)
    assert other.winner == {"1": "2", "2": "1"}.get(judged.winner, judged.winner)
    assert other.p_first_response + judged.p_first_response == pytest.approx(1.0)
    assert (other.reason, other.flipped) == (judged.reason, judged.flipped)
