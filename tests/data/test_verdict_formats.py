"""One literal row per published format with a verdict, a ranking, or a chat beside two answers."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair_rows import DIALOG, NO, PROMPT, YES, assistant, user

from rlhf_cli.config.sections import Source
from rlhf_cli.data.detect import FOR_COMPARISONS, FOR_DEMONSTRATIONS, detect_format
from rlhf_cli.data.fields import BadRow, Row, SetAside
from rlhf_cli.data.paired import comparisons_of
from rlhf_cli.data.preferences import TIES
from rlhf_cli.data.readers import read_comparisons, read_demonstrations
from rlhf_cli.data.verdicts import shared_prefix
from rlhf_cli.errors import DataError
from rlhf_cli.preference.other_formats import Exchange, hh, trl
from rlhf_cli.preference.store import text_to_json
from rlhf_cli.records import Comparison, Message

ASKED = PROMPT[0].content
GOOD, BAD = YES[0].content, NO[0].content
TALK = [{"role": "user", "content": ASKED}]


def turn(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


ROWS: dict[str, tuple[Row, Comparison]] = {
    "helpsteer3": (
        {"context": TALK, "response1": BAD, "response2": GOOD, "overall_preference": 2},
        Comparison(PROMPT, YES, NO, "f:1", margin=2.0),
    ),
    "arena": (
        {
            "model_a": "x",
            "model_b": "y",
            "winner": "model_b",
            "conversation_a": [*TALK, turn(BAD)],
            "conversation_b": [*TALK, turn(GOOD)],
        },
        DIALOG,
    ),
    "webgpt": (
        {
            "question": {"full_text": ASKED},
            "answer_0": BAD,
            "answer_1": GOOD,
            "score_0": -0.5,
            "score_1": 0.5,
        },
        Comparison(PROMPT, YES, NO, "f:1", margin=1.0),
    ),
    "ranked_completions": (
        {
            "context": TALK,
            "completions": [{"rank": 1, "completion": [turn(BAD)]}, {"rank": 0, "completion": [turn(GOOD)]}],
        },
        DIALOG,
    ),
    "sharegpt_preference": (
        {
            "conversations": [{"from": "human", "value": ASKED}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        DIALOG,
    ),
    "asked_preference": ({"instruction": ASKED, "input": "", "chosen": GOOD, "rejected": BAD}, DIALOG),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_format_gives_its_comparison_and_is_recognised(name: str):
    row, expected = ROWS[name]
    assert comparisons_of(row, name, "f:1")[0][0] == expected
    assert detect_format("f", [row], FOR_COMPARISONS).name == name
    assert detect_format("f", [row], FOR_DEMONSTRATIONS).name == name


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be kind.", "question": ASKED, "chosen": GOOD, "rejected": BAD},
        {"instruction": ASKED, "chosen_response": GOOD, "rejected_response": BAD},
        {"instruction": ASKED, "chosen": [*TALK, turn(GOOD)], "rejected": [*TALK, turn(BAD)]},
    ],
)
def test_a_question_beside_two_answers_is_a_chat(row: Row):
    record = comparisons_of(row, "asked_preference", "f:1")[0][0]
    system = (Message("system", "Be kind."),) if "system" in row else ()
    assert (record.prompt, record.chosen, record.rejected) == (system + PROMPT, YES, NO)
    assert detect_format("f", [row], FOR_COMPARISONS).name == "asked_preference"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("helpsteer3", {"overall_preference": 0}),
        ("arena", {"winner": "tie"}),
        ("webgpt", {"score_0": 0.5}),
        ("ranked_completions", {"completions": [{"rank": 1, "completion": w} for w in (GOOD, BAD)]}),
    ],
)
def test_a_tie_is_a_tie(name: str, changes: Row):
    (record,), notes = comparisons_of({**ROWS[name][0], **changes}, name, "f:1")
    assert record.p_chosen == 0.5
    assert TIES in notes


def test_both_bad_is_no_tie():
    with pytest.raises(SetAside, match="both answers are bad"):
        comparisons_of({**ROWS["arena"][0], "winner": "tie (bothbad)"}, "arena", "f:1")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("helpsteer3", {"overall_preference": 4}),
        ("helpsteer3", {"overall_preference": None}),
        ("arena", {"winner": "A"}),
        ("sharegpt_preference", {"conversations": [{"from": "gpt", "value": "x"}]}),
    ],
)
def test_a_row_that_is_not_what_it_says_is_bad(name: str, changes: Row):
    with pytest.raises(BadRow):
        comparisons_of({**ROWS[name][0], **changes}, name, "f:1")


def test_a_shared_prefix_ends_at_a_word():
    pair = shared_prefix({"chosen": "The sky is blue.", "rejected": "The sky is blank."})
    assert (pair.prompt, pair.first, pair.second) == ("The sky is", " blue.", " blank.")
    with pytest.raises(SetAside, match="share no words"):
        shared_prefix({"chosen": "Blue", "rejected": "Blank"})


def test_a_shared_prefix_is_found_only_when_a_source_says_so(tmp_path: Path):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"chosen": "The sky is blue.", "rejected": "The sky is blank."}) + "\n")
    with pytest.raises(DataError, match="plain strings without a prompt"):
        read_comparisons([Source(path=str(path))])
    (record,) = read_comparisons([Source(path=str(path), format="shared_prefix")]).records
    assert record.prompt == "The sky is"


@given(st.lists(st.text(alphabet="ab \n", max_size=12), min_size=3, max_size=3))
def test_a_shared_prefix_loses_no_character(parts: list[str]):
    chosen, rejected = "x " + parts[0] + parts[1], "x " + parts[0] + parts[2]
    pair = shared_prefix({"chosen": chosen, "rejected": rejected})
    assert f"{pair.prompt}{pair.first}" == chosen
    assert f"{pair.prompt}{pair.second}" == rejected


def test_completions_labelled_bad_are_not_imitated(tmp_path: Path):
    rows = [{"prompt": "q", "completion": text, "label": text == "good"} for text in ("good", "bad")]
    path = tmp_path / "kto.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read_demonstrations([Source(path=str(path))])
    assert [record.completion for record in reading.records] == ["good"]


@pytest.mark.parametrize("write", [trl, hh])
@pytest.mark.parametrize("name", ROWS)
def test_every_format_comes_back_from_the_shapes_we_write(name: str, write, tmp_path: Path):
    record = ROWS[name][1]
    parts = {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected}
    row = {part: text_to_json(text) for part, text in parts.items()}
    content, left_out = write(Exchange([row], []))
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    (again,) = read_comparisons([Source(path=str(path))]).records
    assert left_out == 0
    assert (again.prompt, again.chosen, again.rejected) == (record.prompt, record.chosen, record.rejected)


def test_the_pair_rows_are_what_this_file_takes_them_for():
    assert Comparison((user(ASKED),), (assistant(GOOD),), (assistant(BAD),), "f:1") == DIALOG
