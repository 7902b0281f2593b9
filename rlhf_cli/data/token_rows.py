"""Rows of token ids: the label files of lm-human-preferences (Ziegler et al. 2019, arXiv 1909.08593).

A row has `query`, `sample0`, `sample1` and so on as ids of a tokenizer that the file does not name, and in `best` the
number of the sample that people chose. It is decoded first; what is read then is plain text.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf_cli.config.sections import Source
from rlhf_cli.data.decode import completion_text
from rlhf_cli.data.fields import BadRow, Row, integer, kind_of, required, string
from rlhf_cli.data.preferences import Pair
from rlhf_cli.errors import ConfigError
from rlhf_cli.run.reading import Reading

FORMAT = "lm_human_preferences"
_SAMPLE = re.compile(r"sample\d+")
_PADDING = (
    2  # the files pad with the id that is this far behind the last one of the vocabulary: 50259 for GPT-2
)


def decoder_for(source: Source, name: str, table: str) -> Callable[[Row], Row] | None:
    """Give what makes text of the rows of format `name`, None where they are text.

    Raises ConfigError where the source names no tokenizer for ids, or one for text.
    """
    if name != FORMAT:
        if source.tokenizer is None:
            return None
        raise ConfigError(
            f"tokenizer has no meaning for {table}, whose rows hold text ({name})",
            where=source.path,
            fix="Remove the source's `tokenizer`.",
        )
    if source.tokenizer is None:
        raise ConfigError(
            f"{table} holds token ids ({FORMAT}), and nothing says whose",
            where=source.path,
            fix="Add `tokenizer: <a directory or Hugging Face name>` to the source in the YAML file.",
        )
    tokenizer = _load(source.tokenizer)
    return lambda row: decoded(row, tokenizer)


@cache
def _load(path: str) -> PreTrainedTokenizerBase:
    with Reading(path, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    return tokenizer


def decoded(row: Row, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Give the row with text in place of ids; special tokens and padding are no text. Raises BadRow."""
    query = _ids(row, "query", tokenizer)
    texts = {
        name: completion_text(tokenizer, query, _ids(row, name, tokenizer), ()) for name in _samples(row)
    }
    return {**row, **texts, "query": completion_text(tokenizer, (), query, ())}


def _ids(row: Row, name: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    value = required(row, name)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise BadRow(f"field {name!r} is {kind_of(value)}, expected a list of token ids")
    padding = max(tokenizer.vocab_size + _PADDING, len(tokenizer))
    ids = [item for item in value if item != padding]
    if odd := [item for item in ids if not 0 <= item < len(tokenizer)]:
        raise BadRow(f"field {name!r} has the id {odd[0]}, and the tokenizer ends at {len(tokenizer) - 1}")
    return ids


def _samples(row: Row) -> Sequence[str]:
    found = [name for name in row if _SAMPLE.fullmatch(name)]
    names = [f"sample{i}" for i in range(len(found))]
    if len(names) < 2 or set(names) != set(found):
        raise BadRow(f"its samples are {', '.join(found) or 'missing'}, expected sample0, sample1 and so on")
    return names


def best_against_others(row: Row) -> list[Pair]:
    """Pair the best sample of a decoded row with each of the others."""
    names = _samples(row)
    best = integer(row, "best", tuple(range(len(names))))
    query, chosen = string(row, "query"), string(row, names[best])
    return [Pair(query, chosen, string(row, name), 1.0) for i, name in enumerate(names) if i != best]
