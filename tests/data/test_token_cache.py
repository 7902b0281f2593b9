"""Encoded rows that come from disk: the same rows, the same tally, and only for the same texts and settings."""

from pathlib import Path

import pytest
from tiny_tokenizers import byte_tokenizer, chatml_tokenizer
from transformers import PreTrainedTokenizerBase

from rlhf_cli.config.sections import Data
from rlhf_cli.data import encode
from rlhf_cli.data.encode import EncodedPair, EncodedText
from rlhf_cli.data.prepare import make_encoder_of
from rlhf_cli.records import Comparison, Demonstration, Message

PAIRS = [Comparison(f"{n}+{n}=", f" {2 * n}", " <|end|>!", f"f:{n}", 0.75, 1.0) for n in range(5)]
DIALOGS = [
    Demonstration(
        (), (Message("user", "a"), Message("assistant", f"{n}"), Message("assistant", "c")), f"f:{n}"
    )
    for n in range(5)
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "ROWS_PER_CALL", 4)


def make(tokenizer: PreTrainedTokenizerBase, cache: Path | None, **section) -> encode.Encoder:
    data = Data(train=[{"path": "f"}], **section)  # type: ignore[list-item]
    return make_encoder_of(data, tokenizer, (), None, cache=cache)()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sides(pairs: list[EncodedPair]) -> list[EncodedText]:
    return [side for pair in pairs for side in (pair.chosen, pair.rejected)]


def test_rows_and_tally_are_the_same_with_and_without(tmp_path: Path) -> None:
    encoders = [make(byte_tokenizer(), cache) for cache in (None, tmp_path / "c", tmp_path / "c")]
    plain, written, read = (each.comparisons(PAIRS) for each in encoders)
    assert plain == written == read
    assert [each.tally for each in encoders[1:]] == [encoders[0].tally] * 2
    assert encoders[0].tally.counts["special tokens in the text, read as plain characters"] == 5
    assert len(names(tmp_path / "c")) == 2  # 10 sides are two whole blocks, and two that are not kept


def test_conversations_keep_their_masks(tmp_path: Path) -> None:
    plain, written, read = (
        make(chatml_tokenizer(), cache).demonstrations(DIALOGS, loss_on="assistant")
        for cache in (None, tmp_path, tmp_path)
    )
    assert plain == written == read
    assert len(names(tmp_path)) == 1


def test_what_is_on_disk_is_what_comes_out(tmp_path: Path) -> None:
    make(byte_tokenizer(), tmp_path).comparisons(PAIRS)
    (first, second) = sorted(tmp_path.iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    swapped = sides(make(byte_tokenizer(), tmp_path).comparisons(PAIRS))
    plain = sides(make(byte_tokenizer(), None).comparisons(PAIRS))
    assert {tuple(row.input_ids) for row in swapped} == {tuple(row.input_ids) for row in plain}
    assert [row.input_ids for row in swapped] != [row.input_ids for row in plain]
    assert [row.origin for row in swapped] == [row.origin for row in plain]


def test_other_settings_make_other_blocks(tmp_path: Path) -> None:
    make(byte_tokenizer(), tmp_path).comparisons(PAIRS)
    known = names(tmp_path)
    make(byte_tokenizer(), tmp_path, max_length=5).comparisons(PAIRS)  # rows are cut behind the cache
    assert names(tmp_path) == known
    make(chatml_tokenizer(), tmp_path).comparisons(PAIRS)
    make(chatml_tokenizer(), tmp_path, template="chat").comparisons(PAIRS)
    make(byte_tokenizer(), tmp_path).demonstrations(
        [Demonstration(p.prompt, p.chosen, p.origin) for p in PAIRS], loss_on="all"
    )
    assert len(names(tmp_path)) == len(known) + 2 + 2 + 1
