"""Valid files, and every way to spoil them: bytes flipped, cut, doubled and spliced, values swapped for nasty ones."""

import gzip
import io
import json
from collections.abc import Callable, Sequence
from random import Random

import pyarrow
import pyarrow.parquet

NASTY = [
    "", "null", "~", ".nan", "-.inf", "1e999", "-1", "0", "010", "0x1F", "1e-5", "12:30:45", "true", "no", "[]", "{}",
    "[[[[]]]]", "{a: {b: {c: d}}}", "'", '"', "&a x", "*a", "!!python/name:os.system x", "${env:HOME}", "${env:NOPE}",
    "${", "$${x}", "|", ">", "?", "- ", ": ", "#", "%", "@", "`", "\t", "\0", "\x85", "\u2028", "\ufeff", "\ud7ff",
    "🙂", "a" * 5000, "9" * 400, "<<", "<<: *a", "extends: x.yaml", "---", "...", "\r", "\\ud800", '"\\ud800"',
]  # fmt: skip
TOKENS = [
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n", b"\t", b'"', b"\\", b"{", b"}", b"[",
    b"]", b",", b":", b";", b"null", b"NaN", b"1e999", b"-0", b"\\u0000", b"\\ud800", b"<|end|>", b"\x1f\x8b", b"PAR1",
    b"PK\x03\x04", b"9" * 5000, b"[" * 3000, b'{"a":' * 500, "\u202e".encode(), "🙂".encode(), b"\x80abc", b"chosen",
    b"prompt", b"messages",
]  # fmt: skip

_PAIRS = [{"prompt": f"p{i} é", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(6)]
_DIALOG = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
_ROWS: Sequence[Sequence[dict[str, object]]] = [
    [{"prompt": f"p{i}", "completion": f"c {i}"} for i in range(6)],
    [dict(pair) for pair in _PAIRS],
    [{"messages": _DIALOG}] * 4,
    [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 3,
    [{"instruction": "do", "input": "", "output": "done"}] * 3,
    [{"question": "q", "answer": "a"}] * 3,
    [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}] * 3,
    [{"prompt": "p", "response_a": "x", "response_b": "y", "preferred": "a"}] * 3,
    [{"prompt": "p", "chosen": _DIALOG, "rejected": _DIALOG[:1]}] * 3,
    [{"text": "plain"}] * 3,
    [{"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 3, "score_B": 1}] * 3,
    [{"data": {"prompt": "p"}, "annotations": [{"result": [{"value": {"selected": "left"}}]}]}] * 2,
]


def _json_lines(rows: Sequence[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: Sequence[dict[str, object]]) -> bytes:
    lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
    return "\n".join(lines).encode()


def _parquet(rows: Sequence[dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


_WRITERS: Sequence[tuple[str, Callable[[Sequence[dict[str, object]]], bytes]]] = [
    ("rows.jsonl", _json_lines),
    ("rows.json", lambda rows: json.dumps(list(rows)).encode()),
    ("rows.csv", _csv),
    ("rows.parquet", _parquet),
    ("rows.jsonl.gz", lambda rows: gzip.compress(_json_lines(rows), mtime=0)),
]


def spoilt_data(chance: Random) -> tuple[str, bytes]:
    """Give the name and content of a file of rows, spoilt in one to four places."""
    name, write = chance.choice(_WRITERS)
    content = bytearray(write(chance.choice(_ROWS)))
    for _ in range(chance.randint(1, 4)):
        _spoil(content, chance)
    return name, bytes(content)


def _spoil(content: bytearray, chance: Random) -> None:
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice([1, 1, 2, 8, 40]))
    match chance.randrange(6):
        case 0 if content:
            content[start - 1] ^= 1 << chance.randrange(8)
        case 1:
            del content[start:]
        case 2:
            del content[start:end]
        case 3:
            content[start:start] = content[start:end] * chance.choice([1, 3, 50])
        case _:
            content[start:end] = chance.choice(TOKENS)


def spoilt_config(valid: Sequence[str], chance: Random) -> bytes:
    """Give the text of a configuration, spoilt in one to three places."""
    lines = chance.choice(valid).splitlines()
    for _ in range(chance.randint(1, 3)):
        _spoil_lines(lines, chance, valid)
    content = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if chance.random() < 0.2:
        _spoil(content, chance)
    return bytes(content)


def _spoil_lines(lines: list[str], chance: Random, valid: Sequence[str]) -> None:
    place = chance.randrange(len(lines) + 1)
    line = lines[place % len(lines)] if lines else ""
    key = line.partition(":")[0]
    match chance.randrange(7):
        case 0:
            lines[place : place + 1] = [f"{key}: {chance.choice(NASTY)}"]
        case 1:
            lines[place : place + 1] = [line.replace(key.strip() or " ", key.strip()[:-1] + "x", 1)]
        case 2:
            lines[place:place] = [line] * chance.choice([1, 2, 200])
        case 3:
            del lines[place : place + chance.choice([1, 1, 3])]
        case 4:
            lines[place:place] = [chance.choice(["  ", "\t", ""]) + line.strip()]
        case 5:
            lines[place:place] = chance.choice(valid).splitlines()[place : place + 4]
        case _:
            lines[place:place] = [chance.choice(NASTY)]
