"""Preference rows that give no comparison: well formed ones are set aside, the others are bad, all with a reason."""

import pytest
from pair_rows import ARGILLA_FLAT, ARGILLA_NESTED, LABEL_STUDIO, PKU, SHP, SUMMARIES, asked

from rlhf_cli.data.fields import BadRow, Row, SetAside
from rlhf_cli.data.paired import comparisons_of

TURN = "\n\nHuman: q\n\nAssistant: "


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("hh", {"chosen": TURN + "yes", "rejected": TURN + "n\n\nHuman: q\n\nAssistant: no"},
         "hh: different numbers of turns: 2 and 4"),
        ("hh", {"chosen": "\n\nHuman: q\n\nHuman: yes", "rejected": TURN + "no"},
         "hh: speakers do not alternate: chosen, turn 2"),
        ("hh", {"chosen": TURN + "yes", "rejected": "\n\nAssistant: a\n\nHuman: no"},
         "hh: speakers do not alternate: rejected, turn 1"),
        ("hh", {"chosen": TURN + "x\n\nHuman: yes", "rejected": TURN + "x\n\nHuman: no"},
         "hh: the last turn is not the assistant's: chosen"),
        ("hh", {"chosen": TURN + "yes", "rejected": "\n\nHuman: p\n\nAssistant: no"},
         "hh: the turns before the last answer differ"),
        ("hh", {"chosen": "yes", "rejected": TURN + "no"},
         r"hh: no transcript: chosen does not start with '\n\nHuman:'"),
        ("hh", {"chosen": TURN + " ", "rejected": TURN + "no"}, "empty answer"),
        ("hh", {"chosen": TURN + "yes", "rejected": TURN + "yes "}, "identical answers"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "a"}, "identical answers"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "\n"}, "empty answer"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2},
         "the rejected answer has the higher score: 1 against 2"),
        ("preference", {"chosen": [asked("user", "p"), asked("assistant", "x")],
                        "rejected": [asked("user", "q"), asked("assistant", "y")]},
         "chosen and rejected answer different prompts: they part at message 0"),
        ("preference", {"chosen": [asked("user", "q"), asked("assistant", "x")],
                        "rejected": [asked("user", "q"), asked("assistant", "x")]}, "identical answers"),
        ("label_studio", {**LABEL_STUDIO, "annotations": [{"was_cancelled": True, "result": []}]},
         "label_studio: no finished vote"),
        ("label_studio", {**LABEL_STUDIO, "annotations": [{"was_cancelled": False, "result": []}]},
         "label_studio: no finished vote"),
        ("argilla", {**ARGILLA_NESTED, "status": "pending"}, "argilla: no submitted vote"),
        ("argilla", {**ARGILLA_FLAT, "better.responses.status": ["draft"] * 3}, "argilla: no submitted vote"),
        ("argilla", {**ARGILLA_FLAT, "better.responses": None}, "argilla: no submitted vote"),
        ("ultrafeedback", {"instruction": "q", "completions": [{"response": "a"}]}, "a completion without a rating"),
        ("ultrafeedback", {"instruction": "q", "completions": []}, "fewer than two completions"),
    ],
)  # fmt: skip
def test_well_formed_rows_that_give_no_pair_are_set_aside(name: str, row: Row, reason: str):
    with pytest.raises(SetAside) as caught:
        comparisons_of(row, name, "f:1")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("preference", {"prompt": "q", "chosen": "a"}, "field 'rejected' is missing"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": 5}, "expected text or messages"),
        ("preference", {"chosen": "a", "rejected": "b"}, "field 'prompt' is missing, and where the prompt ends"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": "big"}, "expected a number"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": [1]}, "expected a number"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "expected a number"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "p_chosen": 1.5}, "expected a probability"),
        ("preference", {"prompt": "q", "chosen": [asked("user", "a")], "rejected": "b"},
         "is spoken by user, expected assistant"),
        ("hh", {"chosen": TURN, "rejected": None}, "field 'rejected' is null"),
        ("response_pair", {"prompt": "q", "response_a": "a", "response_b": "b", "preferred": "both"},
         "field 'preferred' is 'both', expected a, b or tie"),
        ("shp", {**SHP, "labels": 2}, "field 'labels' is 2, expected one of 0, 1"),
        ("pku_saferlhf", {**PKU, "better_response_id": None}, "field 'better_response_id' is None"),
        ("openai_summaries", {**SUMMARIES, "summaries": [{"text": "x"}]}, "holds 1 entries, expected 2"),
        ("openai_summaries", {**SUMMARIES, "info": {}}, "field 'article' is missing"),
        ("label_studio", {**LABEL_STUDIO, "data": {"prompt": "q"}}, "a prompt and two answers are expected"),
        ("argilla", {**ARGILLA_NESTED, "responses": {"q": [{"value": "maybe"}]}}, "a vote is 'maybe', expected"),
        ("argilla", {**ARGILLA_FLAT, "better.responses.status": ["draft"]}, "must be lists of one length"),
        ("ultrafeedback", {"instruction": "q", "completions": ["a"]}, "expected a list of objects"),
    ],
)  # fmt: skip
def test_rows_that_break_their_format_are_bad(name: str, row: Row, reason: str):
    with pytest.raises(BadRow) as caught:
        comparisons_of(row, name, "f:1")
    assert reason in str(caught.value)
