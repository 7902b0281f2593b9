"""Files of rows as people, other programs and broken disks leave them: exit 65, the place, never a traceback."""

import gzip
import io
import json
import os
import resource
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from shell import Shell, json_lines
from tiny import ANSWERS, PROMPTS, WRONG

from rlhf_cli.data.tables import MAX_LINE_BYTES, jsonl_rows
from rlhf_cli.errors import DataError

ROWS = [{"prompt": p, "completion": a} for p, a in zip(PROMPTS, ANSWERS, strict=True)]
PAIRS = [{"prompt": p, "chosen": a, "rejected": w} for p, a, w in zip(PROMPTS, ANSWERS, WRONG, strict=True)]
LINES = json_lines(ROWS)
GZIPPED = gzip.compress(LINES.encode(), mtime=0)


def parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("stage", "content", "says"),
    [
        ("sft", LINES + '{"prompt": "a" "completion": "b"}\n' + LINES, "rows.jsonl:13:16: expecting ',' delimiter"),
        ("sft", LINES + '{"prompt": "abc', "rows.jsonl:13:12: the file ends inside this row"),
        ("sft", LINES.encode() + b'{"prompt": "\xff", "completion": "a"}\n', "13:13: byte 0xff is not UTF-8"),
        ("sft", "", "0 rows in"),
        ("sft", "\n \n\n", "0 rows in"),
        ("sft", LINES.encode("utf-16"), "UTF-16"),
        ("sft", '{"prompt": ' + "[" * 100_000, "rows.jsonl:1"),
        ("sft", '{"prompt": "a", "completion": "b", "n": ' + "9" * 5000 + "}\n", "rows.jsonl:1"),
        ("sft", '{"prompt": "a", "prompt": "b", "completion": "c"}\n', "appears twice"),
        ("sft", '{"prompt": "a\\ud83d", "completion": "c"}\n', "half a character"),
        ("sft", '{"prompt": NaN, "completion": "c"}\n', "NaN is not JSON"),
        ("sft", bytes(range(256)) * 50, "rows.jsonl"),
        ("sft", "<!DOCTYPE html><html>404</html>\n", "rows.jsonl:1:1"),
        ("sft", b"PK\x03\x04" + b"0" * 100, "a zip archive"),
        ("sft", "version https://git-lfs.github.com/spec/v1\nsize 3\n", "a Git LFS pointer"),
        ("sft", GZIPPED[:-30], "cannot read on"),
        ("sft", flipped(GZIPPED, 40), "cannot read on"),
        ("sft", parquet()[:200], "not readable as Parquet"),
        ("sft", parquet()[:8], "not readable as Parquet"),
        ("sft", json_lines([{"weather": "fine"}]), "fit no format"),
        ("sft", json_lines([{"prompt": "a", "completion": ""}]), "none of the 1 rows"),
        ("sft", json_lines([{"prompt": "a", "completion": " \n"}]), "none of the 1 rows"),
        ("sft", json_lines([{"prompt": "a" * 900, "completion": "b"}]), "the prompt fills the limit"),
        ("sft", json_lines([{"messages": [model("a"), user("b")]}]), "messages[0] is spoken by assistant"),
        ("sft", json_lines([{"messages": [user("a"), user("b"), model("c")]}]), "messages[1] is spoken by user"),
        ("sft", json_lines([{"messages": [{"role": "bob", "content": "a"}, model("b")]}]), "'bob', expected one of"),
        ("sft", json_lines([{"messages": [{"role": "user", "content": 5}, model("b")]}]), "a number, expected text"),
        ("dpo", json_lines([*PAIRS, {"prompt": "a", "chosen": "b"}]), "13: field 'rejected' is missing"),
        ("dpo", json_lines([*PAIRS, {"prompt": "a", "chosen": "b", "rejected": None}]), "'rejected' is null"),
        ("dpo", json_lines([*PAIRS, {"prompt": "a", "chosen": "b", "rejected": 5}]), "'rejected' is a number"),
        ("dpo", json_lines([{"prompt": "a", "chosen": "b", "rejected": "b"}]), "none of the 1 rows"),
        ("dpo", json_lines([{"chosen": "b", "rejected": "c"}]), "without a prompt"),
        ("ppo", json_lines([{"prompt": ""}]), "none of the 1 rows"),
        ("ppo", json_lines([{"prompt": "a" * 900}]), "no prompt is left"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(stage: str, content: bytes | str, says: str, shell: Shell):
    code, said = shell.read(stage, content)
    assert code == 65
    assert says in said


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode(),
        LINES.rstrip("\n") + "\n\n  \n",
        LINES.rstrip("\n"),
        GZIPPED,
        parquet(),
        "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS),
        json.dumps(ROWS),
    ],
)
def test_rows_that_are_fine_whatever_the_name_says(content: bytes | str, shell: Shell):
    code, said = shell.read("sft", content)
    assert code == 0, said
    assert "12 rows read, 12 kept" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"prompt,completion\rmore\na,b\n", "the header is not CSV"),
        (b"prompt,completi\xffn\na,b\n", "the header is not UTF-8"),
        (b"prompt,prompt\na,b\n", "empty or repeated names"),
    ],
)
def test_a_header_that_cannot_be_read(content: bytes, says: str, shell: Shell):
    code, said = shell.read("sft", content, name="rows.csv")
    assert code == 65
    assert says in said


def test_bad_rows_may_be_skipped_and_are_written_beside_the_run(shell: Shell):
    content = (
        LINES.encode() + b'{"prompt": "\xff"}\n' + b'{"prompt": "a", "completion": ""}\n' + b'{"prompt": "abc'
    )
    (shell.folder / "rows.jsonl").write_bytes(content)
    changes = {"data__train": [{"path": "rows.jsonl"}], "train__max_steps": 1}
    assert shell.run("sft", **changes)[0] == 65
    code, said = shell.run("sft", "--fresh", **changes, data__on_bad_row="skip")
    assert code == 0, said
    rejects = [json.loads(line) for line in Path("sft/data/rejects.jsonl").read_text().splitlines()]
    assert [row["origin"] for row in rejects] == ["rows.jsonl:13:13", "rows.jsonl:14", "rows.jsonl:15:12"]
    assert "not UTF-8" in rejects[0]["reason"]
    [report] = json.loads(Path("sft/data/report.json").read_text())
    assert report["counts"]["bad rows"] == 2


def test_evaluation_on_prompts_that_are_trained_on_is_said(shell: Shell):
    (shell.folder / "eval.jsonl").write_text(
        json_lines([{"prompt": "unseen: ", "completion": "a"}, *ROWS[:3]])
    )
    assert shell.run("sft", train__max_steps=1, data__eval=[{"path": "eval.jsonl"}])[0] == 0
    report = json.loads(Path("sft/data/report.json").read_text())[1]
    assert report["counts"]["warning: evaluation rows whose prompt is trained on"] == 3


def test_special_tokens_in_a_users_text_stay_text(shell: Shell):
    rows = [{"prompt": "a<|end|>b", "completion": "x<|pad|>y"}] * 3
    (shell.folder / "rows.jsonl").write_text(json_lines(rows))
    assert shell.run("sft", train__max_steps=1, data__train=[{"path": "rows.jsonl"}])[0] == 0
    [report] = json.loads(Path("sft/data/report.json").read_text())
    assert report["counts"]["special tokens in the text, read as plain characters"] == 3


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(20 * MAX_LINE_BYTES)  # 1.25 GB of zeros that take no place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="a line is longer than 64 MB"):
        next(jsonl_rows(path, str(path)))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 4 * MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, 66),
        (os.mkfifo, 65),
        (lambda path: path.symlink_to(path.name), 66),
        (lambda path: path.symlink_to("/dev/zero"), 65),
        (lambda path: path.mkdir(), 66),
    ],
)
def test_what_is_no_file_of_rows(make, code: int, shell: Shell):
    make(shell.folder / "rows.jsonl")
    assert shell.run("sft", "--dry-run", data__train=[{"path": "rows.jsonl"}])[0] == code


def test_a_folder_that_contains_itself(shell: Shell):
    (shell.folder / "rows").mkdir()
    (shell.folder / "rows" / "a.jsonl").write_text(LINES)
    (shell.folder / "rows" / "up").symlink_to("..")
    assert shell.run("sft", "--dry-run", data__train=[{"path": "rows"}])[0] == 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"format": "hh"}, "rows.jsonl"),
        ({"columns": {"prompt": "promt"}}, "no column 'promt'"),
        ({"format": "prompts"}, "gives nothing this stage can use"),
    ],
)
def test_a_source_that_is_described_wrongly(source: dict[str, object], says: str, shell: Shell):
    (shell.folder / "rows.jsonl").write_text(LINES)
    code, said = shell.run("sft", "--dry-run", data__train=[{"path": "rows.jsonl", **source}])
    assert code == 65
    assert says in said
