"""One literal row per preference format: the exact comparison it becomes, and how the format is recognised."""

import pytest
from pair_rows import (
    ARGILLA_FLAT,
    ARGILLA_NESTED,
    DIALOG,
    LABEL_STUDIO,
    NO,
    PKU,
    PROMPT,
    SHP,
    SUMMARIES,
    ULTRA,
    ULTRA_RAW,
    YES,
    asked,
    assistant,
    user,
)  # fmt: skip

from rlhf_cli.data.detect import FOR_COMPARISONS, detect_format
from rlhf_cli.data.fields import Row
from rlhf_cli.data.paired import comparisons_of
from rlhf_cli.data.preferences import STRIPPED, SWAPPED, TIES
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Message


def read(row: Row, name: str) -> Comparison:
    return comparisons_of(row, name, "f:1")[0][0]


ROWS: dict[str, tuple[Row, Comparison]] = {
    "preference": ({"prompt": "q: ", "chosen": "yes", "rejected": "no"}, Comparison("q: ", "yes", "no", "f:1")),
    "hh": (
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: say Human: x\n\nAssistant: yes Assistant: y ",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: say Human: x\n\nAssistant: no",
        },
        Comparison(
            (user("a"), assistant("b"), user("say Human: x")),
            (assistant("yes Assistant: y"),),
            NO,
            "f:1",
        ),
    ),
    "response_pair": (
        {"prompt": "q: ", "response_a": "no", "response_b": "yes", "preferred": "b", "reason": "short"},
        Comparison("q: ", "yes", "no", "f:1"),
    ),
    "ultrafeedback": (ULTRA, Comparison(PROMPT, YES, NO, "f:1", margin=2.5)),
    "shp": (SHP, DIALOG),
    "pku_saferlhf": (PKU, DIALOG),
    "openai_summaries": (
        SUMMARIES,
        Comparison(
            "SUBREDDIT: r/advice\n\nTITLE: Help\n\nPOST: I fell.\n\nTL;DR:", " Fell.", " Ouch.", "f:1"
        ),
    ),
    "label_studio": (LABEL_STUDIO, DIALOG),
    "argilla": (ARGILLA_NESTED, DIALOG),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_format_gives_its_comparison_and_is_recognised(name: str):
    row, expected = ROWS[name]
    assert read(row, name) == expected
    assert detect_format("f.jsonl", [row], FOR_COMPARISONS).name == name


def test_label_1_of_shp_means_a_and_0_means_b():
    assert read({**SHP, "labels": 0}, "shp") == Comparison(PROMPT, NO, YES, "f:1")


def test_flat_argilla_counts_submitted_votes_only():
    assert read(ARGILLA_FLAT, "argilla") == DIALOG
    assert detect_format("f", [ARGILLA_FLAT], FOR_COMPARISONS).name == "argilla"


def test_raw_ultrafeedback_pairs_best_and_worst_by_mean_rating():
    assert read(ULTRA_RAW, "ultrafeedback") == Comparison(PROMPT, YES, NO, "f:1", margin=3.0)
    assert detect_format("f", [ULTRA_RAW], FOR_COMPARISONS).name == "ultrafeedback"


def test_a_news_article_has_its_own_layout():
    row = {**SUMMARIES, "info": {"article": "Rain."}}
    assert read(row, "openai_summaries").prompt == "Article: Rain.\n\nTL;DR:"


def test_messages_without_prompt_are_cut_where_they_part():
    shared = [asked("system", "s"), asked("user", "q")]
    row = {"chosen": [*shared, asked("assistant", "yes")], "rejected": [*shared, asked("assistant", "no")]}
    assert read(row, "preference") == Comparison((Message("system", "s"), *PROMPT), YES, NO, "f:1")


@pytest.mark.parametrize(
    ("prompt", "prefix"),
    [("q", []), ([asked("user", "q")], []), ([asked("user", "q")], [asked("user", "q")])],
)
def test_an_explicit_prompt_may_be_repeated_in_front_of_the_answers(prompt: object, prefix: list[object]):
    row: Row = {
        "prompt": prompt,
        "chosen": [*prefix, asked("assistant", "yes")],
        "rejected": [*prefix, asked("assistant", "no")],
    }
    assert read(row, "preference") == DIALOG


def test_one_answer_in_words_and_one_in_messages_meet_as_messages():
    row: Row = {"prompt": "q", "chosen": "yes", "rejected": [asked("assistant", "no")]}
    assert read(row, "preference") == DIALOG


@pytest.mark.parametrize(
    ("columns", "p_chosen", "margin"),
    [
        ({}, 1.0, 0.0),
        ({"margin": 0.5}, 1.0, 0.5),
        ({"margin": None}, 1.0, 0.0),
        ({"score_chosen": 7, "score_rejected": 5}, 1.0, 2.0),
        ({"score_chosen": 7, "score_rejected": 5, "margin": 9}, 1.0, 9.0),
        ({"score_chosen": "7", "score_rejected": ""}, 1.0, 0.0),
        ({"score_chosen": 7, "score_rejected": 7}, 0.5, 0.0),
        ({"p_chosen": 0.75}, 0.75, 0.0),
        ({"p_chosen": 0.5}, 0.5, 0.0),
    ],
)
def test_strength_of_a_preference(columns: Row, p_chosen: float, margin: float):
    row = {"prompt": "q", "chosen": "yes", "rejected": "no", **columns}
    assert read(row, "preference") == Comparison("q", "yes", "no", "f:1", p_chosen, margin)


def test_a_doubtful_choice_swaps_the_sides():
    row = {"prompt": "q", "chosen": "no", "rejected": "yes", "p_chosen": 0.25}
    assert comparisons_of(row, "preference", "f:1") == (
        [Comparison("q", "yes", "no", "f:1", p_chosen=0.75)],
        (SWAPPED,),
    )


def test_a_tie_stays_a_tie():
    row = {"prompt": "q", "response_a": "x", "response_b": "y", "preferred": "Tie"}
    assert comparisons_of(row, "response_pair", "f:1") == ([Comparison("q", "x", "y", "f:1", 0.5)], (TIES,))


def test_a_prompt_inside_the_responses_is_cut_off_and_counted():
    row = {"prompt": "q:", "response_a": "q: yes", "response_b": "q: no", "preferred": "a"}
    assert comparisons_of(row, "response_pair", "f:1") == (
        [Comparison("q:", " yes", " no", "f:1")],
        (STRIPPED, STRIPPED),
    )


def test_several_votes_become_a_share():
    annotations = [
        {"was_cancelled": False, "result": [{"type": "pairwise", "value": {"selected": side}}]}
        for side in ("right", "right", "left", "right")
    ]
    row = {"data": LABEL_STUDIO["data"], "annotations": annotations}
    assert read(row, "label_studio") == Comparison(PROMPT, NO, YES, "f:1", p_chosen=0.75)


def test_left_is_the_first_name_of_the_control():
    result = {"type": "pairwise", "to_name": "answer2,answer1", "value": {"selected": "left"}}
    row = {"data": LABEL_STUDIO["data"], "annotations": [{"was_cancelled": False, "result": [result]}]}
    assert read(row, "label_studio") == Comparison(PROMPT, NO, YES, "f:1")


@pytest.mark.parametrize(
    ("vote", "p_first"),
    [
        ("response-1", 1.0), ("response-2", 0.0), ("A", 1.0), ("b", 0.0), (1, 1.0), ("tie", 0.5),
        ([{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}], 0.0),
        ([{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}], 0.5),
    ],
)  # fmt: skip
def test_argilla_votes(vote: object, p_first: float):
    row = {**ARGILLA_NESTED, "responses": {"better": [{"value": vote, "status": "submitted"}]}}
    record = read(row, "argilla")
    assert record.p_chosen == max(p_first, 1 - p_first)
    assert record.chosen == (YES if p_first == 0.0 else NO)


@pytest.mark.parametrize("column", ["query", "input"])
def test_plain_strings_without_prompt_are_refused_with_the_way_out(column: str):
    with pytest.raises(DataError) as caught:
        detect_format(
            "f",
            [{column: "q", "chosen": "The sky is blue.", "rejected": "The sky is green."}],
            FOR_COMPARISONS,
        )
    assert "plain strings without a prompt" in caught.value.message
    assert f"columns: {{prompt: {column}}}" in str(caught.value.fix)


def test_one_damaged_first_transcript_does_not_change_the_format():
    rows: list[Row] = [{"chosen": "x", "rejected": "y"}, ROWS["hh"][0]]
    assert detect_format("f", rows, FOR_COMPARISONS) == ("hh", "transcripts in chosen and rejected")


def test_unknown_columns_are_named():
    with pytest.raises(DataError, match="fit no format this stage reads: winner, loser"):
        detect_format("f", [{"winner": "a", "loser": "b"}], FOR_COMPARISONS)
    with pytest.raises(DataError, match="they fit the format 'text', which has no place here"):
        detect_format("f", [{"text": "a"}], FOR_COMPARISONS)
