"""Sources in, records out: demonstrations, comparisons and prompts, with every rejected row accounted for."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Generic, TypeVar

from rlhf_cli.config.sections import Source
from rlhf_cli.data.detect import (
    FOR_COMPARISONS,
    FOR_DEMONSTRATIONS,
    FOR_LABELLED,
    FOR_PROMPTS,
    SINGLE,
    check_columns,
    detect_format,
    rename,
)
from rlhf_cli.data.fields import BadRow, Row, SetAside
from rlhf_cli.data.files import Reading, Table, no_rows, open_tables
from rlhf_cli.data.formats import demonstration, prompt_of
from rlhf_cli.data.labelled import labelled
from rlhf_cli.data.ledger import Ledger
from rlhf_cli.data.paired import comparisons_of, pairs_of
from rlhf_cli.data.split import prompt_key, split_by_prompt
from rlhf_cli.data.tables import RawRow
from rlhf_cli.data.token_rows import decoder_for
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Labelled, Prompt, Text

__all__ = ["read_comparisons", "read_demonstrations", "read_labelled", "read_prompts", "split_by_prompt"]

R = TypeVar("R", Demonstration, Comparison, Labelled, Prompt)

_TELLING_ROWS = 20
_MOST_ROWS_AHEAD = 1000
_NO_NOTES: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reader(Generic[R]):
    """The formats a kind of record comes in, most telling first, and (row, format, origin) -> (records, notes).

    `files` are those of a collect run that hold such records, the best first.
    """

    formats: tuple[str, ...]
    parse: Callable[[Row, str, str], tuple[Sequence[R], tuple[str, ...]]]
    files: tuple[str, ...] = ("preferences.jsonl",)


# Columns a prompt is made of; the other plain values of a row go with it, for reward functions.
_PROMPT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("instruction", "input"),
    "ultrafeedback": ("prompt", "instruction"),
    "hh": ("chosen", "rejected"),
    "shp": ("history",),
    "helpsteer3": ("context",),
    "ranked_completions": ("context",),
    "lm_human_preferences": ("query",),
    "asked_preference": ("instruction", "input", "system", "question"),
    "question_answer": ("question",),
}


def read_demonstrations(
    sources: Sequence[Source], *, on_bad_row: str = "error", seed: int = 0
) -> Reading[Demonstration]:
    """Read demonstrations; of preference rows, the chosen answer is the one to imitate.

    A source of weight 2.5 gives every record twice and a seeded half of them a third time. Raises DataError with
    the first bad rows and their number when `on_bad_row` is "error", and always when no record is left.
    """
    files = ("demonstrations.jsonl", "preferences.jsonl")
    return _read(sources, _Reader(FOR_DEMONSTRATIONS, _demonstration, files), on_bad_row, seed)


def read_comparisons(
    sources: Sequence[Source], *, on_bad_row: str = "error", seed: int = 0
) -> Reading[Comparison]:
    """Read preference pairs; ties are records with p_chosen 0.5. Weights and errors as in `read_demonstrations`.

    A row of several samples gives a pair for each that is not the best.
    """
    return _read(sources, _Reader(FOR_COMPARISONS, comparisons_of), on_bad_row, seed)


def read_labelled(
    sources: Sequence[Source], *, on_bad_row: str = "error", seed: int = 0
) -> Reading[Labelled]:
    """Read answers with labels of their own, and both answers of pairs. Weights and errors as above."""
    return _read(sources, _Reader(FOR_LABELLED, _labelled), on_bad_row, seed)


def read_prompts(
    sources: Sequence[Source], *, on_bad_row: str = "error", seed: int = 0, deduplicate: bool = False
) -> Reading[Prompt]:
    """Read prompts out of rows of any format but `text`; other plain columns go into `Prompt.extra`.

    `deduplicate` keeps the first row of each prompt, over all sources. Weights and errors as in
    `read_demonstrations`.
    """
    seen: set[str] = set()

    def parse(row: Row, name: str, origin: str) -> tuple[Sequence[Prompt], tuple[str, ...]]:
        prompt = _prompt(row, name, origin)
        if deduplicate:
            key = prompt_key(prompt)
            if key in seen:
                raise SetAside("repeated prompts")
            seen.add(key)
        return (prompt,), _NO_NOTES

    files = ("preferences.jsonl", "demonstrations.jsonl")
    return _read(sources, _Reader(FOR_PROMPTS, parse, files), on_bad_row, seed)


def _demonstration(row: Row, name: str, origin: str) -> tuple[Sequence[Demonstration], tuple[str, ...]]:
    if name in SINGLE:
        return (demonstration(row, name, origin),), _NO_NOTES
    (pair, *_), notes = comparisons_of(row, name, origin)
    if pair.p_chosen == 0.5:
        raise SetAside("a tie has no answer to imitate")
    return (Demonstration(pair.prompt, pair.chosen, origin),), notes


def _labelled(row: Row, name: str, origin: str) -> tuple[Sequence[Labelled], tuple[str, ...]]:
    if name == "prompt_completion":
        return (labelled(row, origin),), _NO_NOTES
    pairs, notes = comparisons_of(row, name, origin)
    if pairs[0].p_chosen == 0.5:
        raise SetAside("a tie has no good and no bad answer")
    rejected = tuple(pair.rejected for pair in pairs)
    return (Labelled(pairs[0].prompt, (pairs[0].chosen,), rejected, origin),), notes


def _prompt(row: Row, name: str, origin: str) -> Prompt:
    prompt: Text = prompt_of(row, name) if name in (*SINGLE, "prompts") else pairs_of(row, name)[0].prompt
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise SetAside("empty prompt")
    used = _PROMPT_COLUMNS.get(name, ("prompt",) if row.get("prompt") is not None else ("question",))
    extra = {
        column: value
        for column, value in row.items()
        if column not in used and isinstance(value, str | int | float)
    }
    return Prompt(prompt, origin, MappingProxyType(extra))


def _read(sources: Sequence[Source], reader: _Reader[R], on_bad_row: str, seed: int) -> Reading[R]:
    ledger: Ledger[R] = Ledger()
    for index, source in enumerate(sources):
        start = len(ledger.records)
        _read_source(source, reader, ledger)
        ledger.records[start:] = weighted(ledger.records[start:], source.weight, f"{seed}/{index}")
    return ledger.close([source.path for source in sources], skip_bad_rows=on_bad_row == "skip")


def _read_source(source: Source, reader: _Reader[R], ledger: Ledger[R]) -> None:
    left = source.limit
    for table in open_tables(
        source.path,
        split=source.split,
        subset=source.subset,
        revision=source.revision,
        wanted=reader.files,
    ):
        before = ledger.num_rows
        _read_table(table, source, reader, ledger, left)
        if left is not None:
            left -= ledger.num_rows - before
            if left <= 0:
                return


def _read_table(
    table: Table, source: Source, reader: _Reader[R], ledger: Ledger[R], limit: int | None
) -> None:
    rows = islice(table.rows, limit)
    first = _until_readable(rows)
    if not first:
        raise no_rows(table.name)
    name, reason = _format_of(table, source, first, reader.formats)
    decode = decoder_for(source, name, table.name)
    before = ledger.num_rows
    for row in chain(first, rows):
        ledger.num_rows += 1
        if row.columns is None:
            ledger.note_bad(row.origin, row.problem)
            continue
        try:
            columns = rename(row.columns, source.columns)
            records, notes = reader.parse(decode(columns) if decode else columns, name, row.origin)
        except BadRow as bad:
            ledger.note_bad(row.origin, str(bad))
        except SetAside as aside:
            ledger.note_set_aside(row.origin, aside)
        else:
            ledger.records += records
            ledger.counts.update(notes)
    note = f", {table.note}" if table.note else ""
    ledger.formats.append(f"{table.name}: {name} ({reason}), {ledger.num_rows - before} rows{note}")


def _until_readable(rows: Iterator[RawRow]) -> list[RawRow]:
    """Take rows until enough of them can be read to tell the format, or far too many cannot."""
    taken: list[RawRow] = []
    readable = 0
    while readable < _TELLING_ROWS and len(taken) < _MOST_ROWS_AHEAD and (row := next(rows, None)):
        taken.append(row)
        readable += row.columns is not None
    return taken


def _format_of(
    table: Table, source: Source, first: Sequence[RawRow], formats: tuple[str, ...]
) -> tuple[str, str]:
    rows = [row.columns for row in first if row.columns is not None]
    if source.format != "auto" and source.format not in formats:
        raise DataError(
            f"format {source.format!r} gives nothing this stage can use",
            where=source.path,
            fix=f"Set it to auto or one of {', '.join(formats)}.",
        )
    if rows:
        check_columns(table.name, rows, source.columns)
    if source.format != "auto":
        return source.format, "as configured"
    if not rows:
        return formats[0], "a guess, no row could be read"
    return detect_format(table.name, [rename(row, source.columns) for row in rows], formats)


def weighted(records: Sequence[R], weight: float, seed: str) -> list[R]:
    """Repeat every record floor(weight) times, and a seeded subset of the size of the remainder once more."""
    whole = math.floor(weight)
    extra = round((weight - whole) * len(records))
    chosen = sorted(random.Random(seed).sample(range(len(records)), extra))
    return list(records) * whole + [records[i] for i in chosen]
