"""Rows of token ids: decoded with the tokenizer that the source names, the best sample against each other one."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_tokenizers import byte_tokenizer, sentencepiece_tokenizer, spelled

from rlhf_cli.config.sections import Source
from rlhf_cli.data.fields import BadRow, Row
from rlhf_cli.data.files import Reading
from rlhf_cli.data.readers import read_comparisons, read_demonstrations, read_labelled, read_prompts
from rlhf_cli.data.token_rows import best_against_others, decoded
from rlhf_cli.errors import ConfigError, DataError, MissingInputError
from rlhf_cli.records import Comparison

PADDING = 260  # two behind the last id of the byte tokenizer
ROW = {
    "query": [PADDING, PADDING, *spelled("Once upon")],
    "sample0": spelled(" a time"),
    "sample1": [*spelled(" a hill"), 0],
    "sample2": [*spelled(" me"), PADDING, PADDING],
    "sample3": spelled(" it"),
    "best": 2,
}


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("tokenizer"))
    byte_tokenizer().save_pretrained(path)
    return path


def source(tmp_path: Path, *rows: object, **keys: object) -> Source:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(rows))
    return Source.model_validate({"path": str(path), **keys})


def test_the_best_sample_is_compared_with_each_other_one(tmp_path: Path, tokenizer_path: str):
    labels = source(tmp_path, ROW, tokenizer=tokenizer_path)
    reading = read_comparisons([labels])
    origin = f"{labels.path}#1"
    assert reading.records == [
        Comparison("Once upon", " me", other, origin) for other in (" a time", " a hill", " it")
    ]
    assert (reading.num_rows, reading.counts) == (1, {})
    assert reading.formats == [
        f"{labels.path}: lm_human_preferences (columns query, sample0, sample1, best), 1 rows"
    ]


def test_a_row_is_one_demonstration_one_prompt_and_one_best_among_bad(tmp_path: Path, tokenizer_path: str):
    labels = [source(tmp_path, ROW, tokenizer=tokenizer_path)]
    (demonstration,) = read_demonstrations(labels).records
    assert (demonstration.prompt, demonstration.completion) == ("Once upon", " me")
    (prompt,) = read_prompts(labels).records
    assert (prompt.prompt, "query" in prompt.extra) == ("Once upon", False)
    (one,) = read_labelled(labels).records
    assert (one.good, one.bad) == ((" me",), (" a time", " a hill", " it"))


def test_a_sample_that_repeats_the_best_is_counted_and_the_others_stay(tmp_path: Path, tokenizer_path: str):
    reading = read_comparisons(
        [source(tmp_path, {**ROW, "sample0": spelled(" me"), "sample1": [0]}, tokenizer=tokenizer_path)]
    )
    assert [record.rejected for record in reading.records] == [" it"]
    assert reading.counts == {
        "identical answers beside usable ones": 1,
        "empty answer beside usable ones": 1,
    }


def test_a_row_whose_samples_all_say_the_same_is_set_aside(tmp_path: Path, tokenizer_path: str):
    same = {f"sample{i}": spelled(" it") for i in range(4)}
    reading: Reading[Comparison] = read_comparisons(
        [source(tmp_path, ROW, {**ROW, **same}, tokenizer=tokenizer_path)]
    )
    assert (len(reading.records), reading.counts) == (3, {"identical answers": 1})


def test_a_sample_keeps_the_space_it_begins_with():
    tokenizer = sentencepiece_tokenizer()
    query, whole = (tokenizer.encode(text, add_special_tokens=False) for text in ("time", "time time"))
    row = decoded({"query": query, "sample0": whole[len(query) :], "sample1": query, "best": 0}, tokenizer)
    assert (row["query"], row["sample0"]) == ("time", " time")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sample1": [3, 259]}, "field 'sample1' has the id 259, and the tokenizer ends at 257"),
        ({"query": [-1]}, "field 'query' has the id -1"),
        ({"query": "Once"}, "field 'query' is text, expected a list of token ids"),
        ({"sample0": [True]}, "field 'sample0' is a list, expected a list of token ids"),
        ({"sample0": None}, "field 'sample0' is null"),
        ({"sample9": [3]}, "expected sample0, sample1 and so on"),
        ({"best": 4}, "field 'best' is 4, expected one of 0, 1, 2, 3"),
        ({"best": None}, "field 'best' is None"),
    ],
)
def test_rows_that_break_the_format_are_bad(changes: Row, reason: str):
    with pytest.raises(BadRow, match=reason):
        best_against_others(decoded({**ROW, **changes}, byte_tokenizer()))


def test_ids_without_a_tokenizer_and_text_with_one_are_refused(tmp_path: Path, tokenizer_path: str):
    with pytest.raises(ConfigError, match=r"labels.json holds token ids .*nothing says whose") as caught:
        read_comparisons([source(tmp_path, ROW)])
    assert "Add `tokenizer: " in str(caught.value)
    text = source(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}, tokenizer=tokenizer_path)
    with pytest.raises(ConfigError, match=r"no meaning for .*whose rows hold text \(preference\)"):
        read_comparisons([text])


def test_a_named_format_is_checked_before_anything_is_read():
    with pytest.raises(ValidationError, match="holds token ids, and nothing says whose"):
        Source(path="x", format="lm_human_preferences")
    with pytest.raises(ValidationError, match="no meaning for hh, whose rows hold text"):
        Source(path="x", format="hh", tokenizer="gpt2")
    assert Source(path="x", format="lm_human_preferences", tokenizer="gpt2").tokenizer == "gpt2"


def test_a_tokenizer_that_is_not_there_or_damaged_is_named(tmp_path: Path):
    with pytest.raises(MissingInputError, match="no/such/place"):
        read_comparisons([source(tmp_path, ROW, tokenizer="no/such/place")])
    damaged = tmp_path / "damaged"
    byte_tokenizer().save_pretrained(damaged)
    (damaged / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"the tokenizer of .*damaged cannot be read"):
        read_comparisons([source(tmp_path, ROW, tokenizer=str(damaged))])
