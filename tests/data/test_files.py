"""Finding the files behind a path, telling what they hold, and saying what is missing."""

import gzip
import os
import sys
import types
from pathlib import Path

import pytest
from file_bytes import LINE, OTHER, ROW, error_of, write_parquet

from rlhf_cli.data.files import open_tables
from rlhf_cli.data.tables import RawRow
from rlhf_cli.errors import DataError, MissingInputError, RlhfError, UnavailableError


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("f.jsonl", b"prompt,completion\nq,a\n", "CSV"),
        ("f.json", LINE + b"\n" + OTHER + b"\n", "JSONL"),
        ("f.csv", LINE + b"\n", "JSONL"),
        ("f.jsonl", b'[{"a": 1}]', "JSON"),
        ("f.jsonl", b'{\n "data": [{"a": 1}]\n}', "JSON"),
        ("rows", LINE + b"\n", "JSONL"),
        ("f.txt", b"prompt\tcompletion\nq\ta\n", "CSV"),
    ],
)
def test_content_decides_and_the_table_says_so(tmp_path: Path, name: str, content: bytes, kind: str):
    (tmp_path / name).write_bytes(content)
    (table,) = open_tables(str(tmp_path / name))
    assert table.note == f"by its content {kind}, whatever its name says"
    assert all(row.columns for row in table.rows)


def test_parquet_by_another_name(tmp_path: Path):
    write_parquet(tmp_path / "f.jsonl", [{"a": 1}])
    (table,) = open_tables(str(tmp_path / "f.jsonl"))
    assert [row.columns for row in table.rows] == [{"a": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "is a zip archive"),
        ("prompt,completion\n".encode("utf-16"), "is UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"some words\nand more\n", "is neither JSONL, JSON, CSV nor Parquet"),
        (gzip.compress(LINE * 10_000)[:-30], "cannot read on"),
        (b"\x1f\x8bnot gzip at all", "cannot read on"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str):
    assert message in error_of(tmp_path / "f.txt", content).message


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path):
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(MissingInputError) as caught:
        open_tables(str(tmp_path / "pears.jsonl"))
    assert caught.value.fix == f"Did you mean {tmp_path}/pairs.jsonl?"
    with pytest.raises(MissingInputError, match="no such file") as caught:
        open_tables(str(tmp_path / "no" / "such" / "f.jsonl"))
    assert caught.value.fix == f"Correct the path; {tmp_path} has no 'no'."


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "data/pairs.jsonl"])
def test_impossible_paths_are_missing_input(path: str):
    with pytest.raises(MissingInputError):
        open_tables(path)


def test_a_pipe_is_refused_instead_of_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        open_tables(str(tmp_path / "pipe.jsonl"))


def test_a_directory_or_a_run_gives_its_files_of_rows_in_order(tmp_path: Path):
    for name in (
        "b.jsonl",
        "a.jsonl.gz",
        "README.md",
        ".hidden.jsonl",
        "metrics.jsonl",
        "manifest.json",
        "x.db",
    ):
        (tmp_path / name).write_bytes(LINE)
    assert [Path(table.name).name for table in open_tables(str(tmp_path))] == ["a.jsonl.gz", "b.jsonl"]


def test_a_directory_of_splits_gives_one_split(tmp_path: Path):
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes(LINE)
    assert [Path(t.name).name for t in open_tables(str(tmp_path), split="test")] == ["test.jsonl"]
    assert len(open_tables(str(tmp_path))) == 2
    with pytest.raises(DataError, match="no file of split 'validation'"):
        open_tables(str(tmp_path), split="validation")


def test_a_directory_without_rows(tmp_path: Path):
    with pytest.raises(MissingInputError, match="no file of rows"):
        open_tables(str(tmp_path))


def test_a_hub_name_goes_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def load_dataset(*args: object, **options: object) -> list[dict[str, object]]:
        asked.append((args, options))
        if "data_dir" not in options:
            raise ValueError("BuilderConfig 'harmless' not found")
        return [ROW]

    monkeypatch.chdir(tmp_path)
    fake_datasets(monkeypatch, load_dataset)
    (table,) = open_tables("owner/name", split="test", subset="harmless", revision="abc")
    assert list(table.rows) == [RawRow("owner/name[test]#1", ROW)]
    common = {"split": "test", "revision": "abc"}
    assert asked == [
        (("owner/name", "harmless"), common),
        (("owner/name",), {"data_dir": "harmless", **common}),
    ]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ConnectionError, UnavailableError), (ValueError, DataError), (FileNotFoundError, DataError)],
)
def test_hub_failures_have_their_own_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception], expected: type[RlhfError]
):
    def load_dataset(*args: object, **options: object) -> None:
        raise raised("no")

    monkeypatch.chdir(tmp_path)
    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(expected) as caught:
        open_tables("owner/name")
    assert caught.value.where == "owner/name"


def test_a_file_name_is_never_taken_for_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for path in ("data/pairs", "owner/pairs.jsonl", "pairs"):
        with pytest.raises(MissingInputError):
            open_tables(path)


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load_dataset: object) -> None:
    """Stand in for the `datasets` library, which takes seconds to import."""
    package, load, exceptions = (
        types.ModuleType(name) for name in ("datasets", "datasets.load", "datasets.exceptions")
    )
    vars(load)["load_dataset"] = load_dataset
    failures = type("DatasetsError", (Exception,), {})
    vars(exceptions).update(DatasetsError=failures, DatasetNotFoundError=type("Missing", (failures,), {}))
    for module in (package, load, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
