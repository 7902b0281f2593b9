"""Labelled answers: how rows are read, and which stranger each is laid beside."""

import json
from pathlib import Path

import pytest

from rlhf_cli.config.sections import Source
from rlhf_cli.data.labelled import beside_strangers
from rlhf_cli.data.readers import read_labelled
from rlhf_cli.errors import DataError
from rlhf_cli.records import Labelled, Message


def read(tmp_path: Path, *rows: object) -> list[Labelled]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_labelled([Source(path=str(path))]).records


def test_rows_with_a_label_and_pairs_are_read(tmp_path: Path):
    good, bad = read(
        tmp_path,
        {"prompt": "p", "completion": "a", "label": True},
        {"prompt": "q", "completion": "b", "label": 0},
    )
    assert (good.good, good.bad, bad.good, bad.bad) == (("a",), (), (), ("b",))
    (pair,) = read(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"})
    assert (pair.good, pair.bad) == (("a",), ("b",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "completion": "a"}, "field 'label' is missing"),
        (
            {"prompt": "p", "completion": "a", "label": "yes"},
            "field 'label' is 'yes', expected true or false",
        ),
        ({"prompt": "p", "completion": "a", "label": 2}, "field 'label' is 2"),
    ],
)
def test_a_row_without_a_plain_label_is_refused(tmp_path: Path, row: object, message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, row)


def test_the_stranger_is_the_next_answer_to_another_prompt():
    rows = [
        Labelled("p", ("a",), ("b",), "1"),
        Labelled("q", (), ("c",), "2"),
        Labelled("r", ("c",), (), "3"),
    ]
    pairs = beside_strangers(rows)
    found = [(pair.prompt, pair.chosen, pair.rejected, pair.p_chosen) for pair in pairs]
    assert found == [("p", "a", "c", 1.0), ("p", "b", "c", 0.0), ("q", "c", "a", 0.0), ("r", "c", "a", 1.0)]


def test_dialogs_and_strings_are_no_strangers_to_each_other():
    dialog = (Message("assistant", "hi"),)
    rows = [Labelled("p", ("a",), (), "1"), Labelled((Message("user", "q"),), (dialog,), (), "2")]
    with pytest.raises(DataError, match="with those to other prompts"):
        beside_strangers(rows)


def test_one_prompt_alone_has_no_stranger():
    with pytest.raises(DataError, match="other prompts"):
        beside_strangers([Labelled("p", ("a",), ("b",), "1")])
    assert beside_strangers([]) == []
