"""Each kind of file in all its dresses, and each way it can be broken: what is read, and what the reader says."""

import gzip
import json
from pathlib import Path

import pytest
from file_bytes import LINE, OTHER, ROW, error_of, rows_of, write_parquet

from rlhf_cli.data import tables
from rlhf_cli.data.files import open_tables
from rlhf_cli.data.tables import RawRow


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + OTHER + b"\n",
        LINE + b"\n" + OTHER,
        LINE + b"\r\n" + OTHER + b"\r\n",
        tables.BOM + LINE + b"\n" + OTHER + b"\n",
        b"\n" + LINE + b"\n  \n\r\n" + OTHER + b"\n\n\n",
        gzip.compress(LINE + b"\n" + OTHER + b"\n", mtime=0),
        gzip.compress(tables.BOM + LINE + b"\n", mtime=0) + gzip.compress(OTHER, mtime=0),
    ],
    ids=["plain", "no final newline", "CRLF", "BOM", "empty lines", "gz", "two gz members and a BOM"],
)
def test_jsonl_in_all_its_dresses(tmp_path: Path, content: bytes):
    rows = rows_of(tmp_path / "f.jsonl", content)
    assert [row.columns for row in rows] == [ROW, {"prompt": "p", "completion": "c"}]
    assert [row.problem for row in rows] == ["", ""]


def test_origins_count_lines_from_one_with_empty_lines(tmp_path: Path):
    rows = rows_of(tmp_path / "f.jsonl", b"\n" + LINE + b"\n\n" + OTHER)
    assert [row.origin for row in rows] == [f"{tmp_path}/f.jsonl:2", f"{tmp_path}/f.jsonl:4"]


@pytest.mark.parametrize(
    ("line", "place", "problem"),
    [
        (b'{"a": "b" "c"}', ":11", 'expecting \',\' delimiter, near \'{"a": "b" "c"}\''),
        (b'{"a": "\xff"}', ":8", "byte 0xff is not UTF-8"),
        (b"[1, 2]", "", "a JSON list, expected an object"),
        (b'"text"', "", "a JSON str, expected an object"),
        (b"null", "", "a JSON NoneType, expected an object"),
        (b'{"a": NaN}', "", "NaN is not JSON"),
        (b'{"a": -Infinity}', "", "-Infinity is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "", "key 'a' appears twice in one object"),
        (b'{"a": "\\ud83d"}', "", "an escape such as \\ud83d is half a character"),
        (b'{"a": ' + b"9" * 5000 + b"}", "", "Exceeds the limit"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "", "maximum recursion depth exceeded"),
        (b'{"a": 1}}', ":9", "extra data"),
    ],
)
def test_a_broken_line_names_its_place_and_the_rest_goes_on(
    tmp_path: Path, line: bytes, place: str, problem: str
):
    rows = rows_of(tmp_path / "f.jsonl", LINE + b"\n" + line + b"\n" + OTHER)
    assert [row.columns is None for row in rows] == [False, True, False]
    assert rows[1].origin == f"{tmp_path}/f.jsonl:2{place}"
    assert problem in rows[1].problem


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path):
    assert rows_of(tmp_path / "f.jsonl", b'{"a": "\\ud83e\\udd8a"}')[0].columns == {"a": "🦊"}


@pytest.mark.parametrize("keep", range(1, len(OTHER)))
def test_a_cut_last_line_is_one_problem(tmp_path: Path, keep: int):
    rows = rows_of(tmp_path / "f.jsonl", LINE + b"\n" + OTHER[:keep])
    assert [row.columns for row in rows] == [ROW, None]
    assert rows[1].problem.startswith("the file ends inside this row: ")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 50)
    assert len(rows_of(tmp_path / "f.jsonl", LINE + b"\n" + LINE)) == 2
    error = error_of(tmp_path / "f.jsonl", LINE + b"\n" + b'{"a": "' + b"x" * 50 + b'"}')
    assert error.where == f"{tmp_path}/f.jsonl:2"
    assert "longer than" in error.message


@pytest.mark.parametrize("content", [b"", b"\n \r\n", tables.BOM, gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f"])
def test_an_empty_file_has_0_rows(tmp_path: Path, content: bytes, name: str):
    assert error_of(tmp_path / name, content).message == f"0 rows in {tmp_path / name}"


@pytest.mark.parametrize(
    "document",
    [
        [ROW, {"a": 1}],
        {"version": 2, "data": [ROW, {"a": 1}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_documents(tmp_path: Path, document: object, indent: int | None):
    rows = rows_of(tmp_path / "f.json", json.dumps(document, indent=indent).encode())
    expected = [RawRow(f"{tmp_path}/f.json#1", ROW), RawRow(f"{tmp_path}/f.json#2", {"a": 1})]
    assert rows == expected


@pytest.mark.parametrize("row", [ROW, {"messages": [{"role": "user", "content": "q"}]}])
def test_a_json_document_may_be_one_row(tmp_path: Path, row: dict[str, object]):
    assert [r.columns for r in rows_of(tmp_path / "f.json", json.dumps(row, indent=1).encode())] == [row]


def test_a_broken_json_document_stops_with_its_place(tmp_path: Path):
    error = error_of(tmp_path / "f.json", b'[\n {"a": 1},\n {"a" 2}\n]')
    assert error.where == f"{tmp_path}/f.json:3:7"
    assert "expecting ':' delimiter" in error.message
    rows = rows_of(tmp_path / "g.json", b'[{"a": 1}, 5]')
    assert rows[1] == RawRow(f"{tmp_path}/g.json#2", None, "a JSON int, expected an object")


def test_csv_with_quotes_commas_and_lines_in_cells(tmp_path: Path):
    content = 'prompt,completion\r\n"a, ""b""","x\ny"\r\n\r\nc,ü\r\n'.encode()
    assert rows_of(tmp_path / "f.csv", content) == [
        RawRow(f"{tmp_path}/f.csv:2", {"prompt": 'a, "b"', "completion": "x\ny"}),
        RawRow(f"{tmp_path}/f.csv:5", {"prompt": "c", "completion": "ü"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_by_other_separators(tmp_path: Path, delimiter: str):
    content = tables.BOM + f"prompt{delimiter}completion\nq{delimiter}a\n".encode()
    assert rows_of(tmp_path / "f.tsv", content)[0].columns == {"prompt": "q", "completion": "a"}


def test_broken_csv_rows_do_not_hide_the_next(tmp_path: Path):
    content = b'a,b\n1\n2,\xff\n"x"y,z\n3,4\n"5,6\n'
    rows = rows_of(tmp_path / "f.csv", content)
    assert [(row.origin.rsplit(":", 1)[1], row.columns, row.problem) for row in rows] == [
        ("2", None, "1 cells, the header has 2"),
        ("3", None, "bytes that are not UTF-8"),
        ("4", None, "',' expected after '\"'"),
        ("5", {"a": "3", "b": "4"}, ""),
        ("6", None, "unexpected end of data"),
    ]


@pytest.mark.parametrize("header", [b"a,a\n1,2\n", b"a,\n1,2\n"])
def test_a_csv_header_names_every_column_once(tmp_path: Path, header: bytes):
    assert "empty or repeated names" in error_of(tmp_path / "f.csv", header).message


def test_parquet_rows_and_a_damaged_file(tmp_path: Path):
    path = tmp_path / "f.parquet"
    messages = [{"role": "user", "content": "🦊"}]
    write_parquet(path, [{"messages": messages, "n": None}, {"messages": [], "n": 2}])
    (table,) = open_tables(str(path))
    assert list(table.rows) == [
        RawRow(f"{path}#1", {"messages": messages, "n": None}),
        RawRow(f"{path}#2", {"messages": [], "n": 2}),
    ]
    assert table.note == ""
    error = error_of(path, path.read_bytes()[:-20])
    assert "not readable as Parquet" in error.message
