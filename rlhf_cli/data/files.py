"""From a path or a data set name to tables of rows: finding the files, telling what they really hold.

The content decides what a file is, not its name; where the two differ, the table's note says so.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rlhf_cli.data.tables import (
    RawRow,
    csv_rows,
    delimiter_of,
    head_of,
    json_rows,
    jsonl_rows,
    lines_of,
    parquet_rows,
    parse_line,
)
from rlhf_cli.errors import DataError, MissingInputError

R = TypeVar("R", covariant=True)

_KINDS = {
    ".jsonl": "JSONL", ".ndjson": "JSONL", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV",
    ".parquet": "Parquet", ".pq": "Parquet",
}  # fmt: skip
_PARSERS = {"JSONL": jsonl_rows, "JSON": json_rows, "CSV": csv_rows, "Parquet": parquet_rows}
_SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
# Files beside the rows in a run directory and in a copy of a Hub data set.
_NOT_ROWS = {
    "manifest.json",
    "metrics.jsonl",
    "events.jsonl",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COLUMN_NAME = re.compile(r"\s*\"?[A-Za-z_][\w .-]{0,60}\"?\s*")
_UNREADABLE = {
    b"PK\x03\x04": ("a zip archive", "Unpack it first."),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it first."),
    b"\xfd7zXZ": ("compressed with xz", "Unpack it first."),
    b"BZh": ("compressed with bzip2", "Unpack it first."),
    b"\xff\xfe": ("UTF-16 text", "Convert it to UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Convert it to UTF-8."),
    b"version https://git-lfs": (
        "a Git LFS pointer, not the data",
        "Run `git lfs pull` where it comes from.",
    ),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that gave no record, and why."""

    origin: str
    reason: str


@dataclass(frozen=True)
class Reading(Generic[R]):
    """What came out of some sources. At weight 1, and where no row gives several records,
    `num_rows == len(records) + len(rejected)`.

    `formats` says per file what it was read as and why; `counts` sums rejections and repairs by reason.
    """

    records: list[R]
    num_rows: int
    formats: list[str]
    rejected: list[Rejected]
    counts: dict[str, int]


@dataclass(frozen=True)
class Table:
    """The rows of one file, not read yet; `note` says what is surprising about the file, or nothing."""

    name: str
    rows: Iterator[RawRow]
    note: str = ""


def open_tables(
    path: str,
    *,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    wanted: Sequence[str] = (),
) -> list[Table]:
    """Find the tables behind a file, a directory or a Hub data set name.

    Of a collect run, the training rows are the first file of `wanted` that it has. In another directory whose file
    names tell splits apart, those of `split` are taken. Raises MissingInputError when
    there is no such thing and DataError when it cannot hold rows.
    """
    place = Path(path)
    try:
        if place.is_dir():
            return [open_file(file) for file in _collected(place, split, wanted) or _files_in(place, split)]
        if place.exists():
            return [open_file(place)]
    except OSError as error:
        raise MissingInputError(
            f"cannot open {path}: {error.strerror}", where=path, fix="Correct the path."
        ) from error
    if _looks_like_hub_name(path):
        from rlhf_cli.data.hub import open_hub

        name, rows = open_hub(path, split=split, subset=subset, revision=revision)
        return [Table(name, rows)]
    raise MissingInputError(f"no such file or directory: {path}", where=path, fix=_suggestion(place))


def _collected(folder: Path, split: str, wanted: Sequence[str]) -> list[Path]:
    """Return the one file that a collect run wrote for the use at hand; none for other folders."""
    if split != "train" or not (folder / "collect.db").is_file():
        return []
    return [folder / name for name in wanted if (folder / name).is_file()][:1]


def _files_in(folder: Path, split: str) -> list[Path]:
    files = sorted(
        file
        for file in folder.iterdir()
        if _kind_by_name(file)
        and file.name not in _NOT_ROWS
        and not file.name.startswith(".")
        and file.is_file()
    )
    if not files:
        kinds = " ".join(_KINDS)
        raise MissingInputError(
            f"no file of rows in {folder}", where=str(folder), fix=f"Name a file; read are {kinds}."
        )
    named = {file: _SPLITS & set(re.split(r"[^a-z]+", file.name.lower())) for file in files}
    if not any(named.values()):
        return files
    chosen = [file for file, words in named.items() if split.lower() in words]
    if not chosen:
        raise DataError(
            f"no file of split {split!r} in {folder}",
            where=str(folder),
            fix=f"Name one of its files: {', '.join(file.name for file in files)}.",
        )
    return chosen


def open_file(path: Path) -> Table:
    """Make the table of one file, by what its first bytes say it is."""
    if not path.is_file():  # a pipe could be read only once, and telling its kind takes one read
        raise DataError(
            f"{path} is not a regular file", where=str(path), fix="Write the rows to a file first."
        )
    kind = _kind_by_content(path)
    note = "" if kind == _kind_by_name(path) else f"by its content {kind}, whatever its name says"
    return Table(str(path), _PARSERS[kind](path, str(path)), note)


def _kind_by_name(path: Path) -> str | None:
    suffixes = path.suffixes
    if suffixes and suffixes[-1].lower() == ".gz":
        suffixes = suffixes[:-1]
    return _KINDS.get(suffixes[-1].lower()) if suffixes else None


def _kind_by_content(path: Path) -> str:
    head = head_of(path, 64)
    for magic, (what, fix) in _UNREADABLE.items():
        if head.startswith(magic):
            raise DataError(f"{path} is {what}", where=str(path), fix=fix)
    if head.startswith(b"PAR1"):
        return "Parquet"
    lines = (line.strip() for _, line in lines_of(path, str(path)) if not line.isspace())
    first = next(lines, b"")
    if not first:
        raise no_rows(str(path))
    kind = _kind_of_text(first, _kind_by_name(path), only_line=next(lines, None) is None)
    if kind is None:
        raise DataError(
            f"{path} is neither JSONL, JSON, CSV nor Parquet",
            where=f"{path}:1",
            fix="Write one JSON object per line.",
        )
    return kind


def no_rows(name: str) -> DataError:
    """Make the error for a file without rows."""
    return DataError(f"0 rows in {name}", where=name, fix="Check what wrote the file.")


def _kind_of_text(first: bytes, expected: str | None, *, only_line: bool) -> str | None:
    """Tell the kind from the first line that is not empty; `expected` is what the file's name promises."""
    if first.startswith(b"["):
        return "JSON"
    if first.startswith(b"{"):
        if parse_line(first + b"\n", "").columns is not None:
            return "JSON" if only_line and expected == "JSON" else "JSONL"
        if first == b"{" or expected == "JSON":
            return "JSON"
        return "CSV" if expected == "CSV" else "JSONL"
    header = first.decode(errors="replace")
    names = header.split(delimiter_of(header))
    if expected == "CSV" or (len(names) > 1 and all(_COLUMN_NAME.fullmatch(name) for name in names)):
        return "CSV"
    return expected


def _looks_like_hub_name(path: str) -> bool:
    # `data/pairs.jsonl` has the shape of a Hub name too.
    owner = Path(path).parent
    return bool(_HUB_NAME.fullmatch(path)) and _kind_by_name(Path(path)) is None and not owner.is_dir()


def _suggestion(missing: Path) -> str:
    folder = missing.parent
    if not folder.is_dir():
        existing = next((parent for parent in folder.parents if parent.is_dir()), Path())
        return f"Correct the path; {existing.absolute()} has no {folder.relative_to(existing).parts[0]!r}."
    close = difflib.get_close_matches(missing.name, [file.name for file in folder.iterdir()], n=3, cutoff=0.5)
    if not close:
        return f"Correct the path; nothing in {folder.absolute()} has a similar name."
    return f"Did you mean {' or '.join(str(folder / name) for name in close)}?"
