"""Parsers of JSONL, JSON, CSV and Parquet: bytes in, rows with origins out, a broken row never hides the next one.

Origins: `pairs.jsonl:12` is a line, `pairs.jsonl:12:38` a place in it (CSV: the line a row starts on);
`pairs.json#12` and `pairs.parquet#12` are the 12th row.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from rlhf_cli.errors import DataError, MissingInputError

MAX_LINE_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 2**30
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"

# An object with one list holds its rows there, unless the list is a column of a single row.
_LIST_COLUMNS = {
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "completions", "summaries", "annotations"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as the file holds it, or `columns` None and the `problem` that kept it from being read."""

    origin: str
    columns: dict[str, object] | None
    problem: str = ""


def open_bytes(path: Path) -> BufferedReader:
    """Open a file for reading, through gzip when its first bytes say so."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
        return BufferedReader(gzip.open(path)) if packed else path.open("rb")
    except OSError as error:
        raise MissingInputError(f"cannot open {path}: {error.strerror or error}", where=str(path)) from error


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read on: {error}", where=where, fix="Get the file again.") from error


def head_of(path: Path, num_bytes: int) -> bytes:
    """Give the first bytes of a file, unpacked."""
    with open_bytes(path) as stream, _reading(str(path)):
        return stream.read(num_bytes)


def lines_of(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes with their newline), without a BOM. Raises DataError past MAX_LINE_BYTES."""
    number = 0
    with open_bytes(path) as stream:
        while True:
            number += 1
            with _reading(f"{name}:{number}"):
                line = stream.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"a line is longer than {MAX_LINE_BYTES // 2**20} MB",
                    where=f"{name}:{number}",
                    fix="Write one JSON object per line.",
                )
            yield number, line.removeprefix(BOM) if number == 1 else line


def jsonl_rows(path: Path, name: str) -> Iterator[RawRow]:
    """Parse one object per line; empty lines are skipped, a cut last line is a row with a problem."""
    for number, line in lines_of(path, name):
        if not line.isspace():
            yield parse_line(line, f"{name}:{number}")


def parse_line(line: bytes, origin: str) -> RawRow:
    """Parse one line of JSONL."""
    try:
        content = line.decode().rstrip(" \t\r\n")
        value = _DECODER.decode(content)
    except UnicodeDecodeError as error:
        return RawRow(f"{origin}:{error.start + 1}", None, f"byte 0x{line[error.start]:02x} is not UTF-8")
    except json.JSONDecodeError as error:
        torn = "" if line.endswith(b"\n") else "the file ends inside this row: "
        return RawRow(f"{origin}:{error.colno}", None, torn + _syntax(error))
    except (ValueError, RecursionError) as error:
        return RawRow(origin, None, str(error))
    return _checked(value, origin, may_hold_escapes="\\u" in content)


def _syntax(error: json.JSONDecodeError) -> str:
    near = error.doc[max(0, error.pos - 40) : error.pos + 40].strip()
    return f"{error.msg[:1].lower()}{error.msg[1:]}, near {near!r}" if near else "nothing but white space"


def _checked(value: object, origin: str, *, may_hold_escapes: bool) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(origin, None, f"a JSON {type(value).__name__}, expected an object")
    if may_hold_escapes and not _is_encodable(value):
        return RawRow(origin, None, "an escape such as \\ud83d is half a character")
    return RawRow(origin, value)


def _is_encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} appears twice in one object")
    return row


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def json_rows(path: Path, name: str) -> Iterator[RawRow]:
    """Parse one document: an array of objects, an object with one list of them, or a single object.

    Raises DataError when the document is broken: where its next row starts cannot be known.
    """
    yield from (
        _checked(value, f"{name}#{i}", may_hold_escapes=True)
        for i, value in enumerate(_document(path, name), 1)
    )


def _document(path: Path, name: str) -> list[object]:
    data = head_of(path, MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DataError("a JSON document of more than 1 GB", where=name, fix="Convert it to JSONL.")
    try:
        value = _DECODER.decode(data.removeprefix(BOM).decode())
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} is not UTF-8", where=name, fix="Convert the file to UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        raise DataError(
            _syntax(error), where=where, fix="Correct the JSON, or write one object per line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(str(error), where=name, fix="Correct the JSON.") from error
    if isinstance(value, dict):
        lists = [key for key, item in value.items() if isinstance(item, list)]
        wrapped = len(lists) == 1 and lists[0] not in _LIST_COLUMNS
        return list(value[lists[0]]) if wrapped else [value]
    return value if isinstance(value, list) else [value]


def csv_rows(path: Path, name: str) -> Iterator[RawRow]:
    """Parse a table with a header line; commas, semicolons or tabs, whichever the header has most of."""
    csv.field_size_limit(MAX_LINE_BYTES)
    # Undecodable bytes become surrogates, so that one such row does not hide the rest.
    text_lines = (line.decode(errors="surrogateescape") for _, line in lines_of(path, name))
    first = next(text_lines, "")
    try:
        header = next(csv.reader([first], delimiter=delimiter_of(first)), [])
    except csv.Error as error:
        raise DataError(
            f"the header is not CSV: {error}", where=f"{name}:1", fix="Save the table anew."
        ) from error
    if not _is_encodable(header):
        raise DataError("the header is not UTF-8", where=f"{name}:1", fix="Convert the file to UTF-8.")
    if len(set(header)) != len(header) or not all(header):
        raise DataError(
            "the header has empty or repeated names", where=f"{name}:1", fix="Name every column once."
        )
    reader = csv.reader(text_lines, delimiter=delimiter_of(first), strict=True)
    while True:
        origin = f"{name}:{reader.line_num + 2}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RawRow(origin, None, str(error))
            continue
        if cells:
            yield _csv_row(header, cells, origin)


def _csv_row(header: list[str], cells: list[str], origin: str) -> RawRow:
    if len(cells) != len(header):
        return RawRow(origin, None, f"{len(cells)} cells, the header has {len(header)}")
    if not _is_encodable(cells):
        return RawRow(origin, None, "bytes that are not UTF-8")
    return RawRow(origin, dict(zip(header, cells, strict=True)))


def delimiter_of(header: str) -> str:
    """Choose the separator that a header line has most of; a comma when it has none."""
    return max(",;\t", key=header.count)


def parquet_rows(path: Path, name: str) -> Iterator[RawRow]:
    """Read a Parquet file batch by batch. Raises DataError when it is damaged."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # type: ignore[no-untyped-call]
            for batch in file.iter_batches(batch_size=1024):
                for columns in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{name}#{number}", columns)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # type: ignore[attr-defined]
        where = f"{name}#{number + 1}"
        raise DataError(
            f"not readable as Parquet: {error}", where=where, fix="Get the file again."
        ) from error
