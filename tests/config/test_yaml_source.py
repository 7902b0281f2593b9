"""Scalars by YAML 1.2, places of keys and values, and the limits that stop hostile files."""

import math
import time

import pytest

from rlhf_cli.config.problems import ConfigProblems
from rlhf_cli.config.yaml_source import AmbiguousScalar, Document, Text, decode, parse, resolve_scalar


def read(text: str) -> Document:
    return parse(Text("a.yaml", text))


def message_of(text: str) -> str:
    with pytest.raises(ConfigProblems) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("2024-01-02", "2024-01-02"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("-.inf", -math.inf),
        (".", "."),
        ("-", "-"),
        ("e5", "e5"),
        ("012.5", 12.5),
    ],
)
def test_scalar(text, value):
    found = resolve_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_nan():
    assert math.isnan(resolve_scalar(".nan"))


@pytest.mark.parametrize("text", ["012", "-007", "00", "12:30:45", "1:2", "190:20:30.15", "9" * 5000])
def test_ambiguous_scalar(text):
    with pytest.raises(AmbiguousScalar):
        resolve_scalar(text)


def test_quoted_scalars_are_text():
    assert read("a: '012'\nb: \"1\"\nc: |\n  2\n").data == {"a": "012", "b": "1", "c": "2\n"}


def test_places():
    document = read("# head\na:\n  b: [1, {c: 2}]\n")
    assert document.data == {"a": {"b": [1, {"c": 2}]}}
    assert {path: spot[:3] for path, spot in document.keys.items()} == {
        ("a",): ("a.yaml", 2, 1),
        ("a", "b"): ("a.yaml", 3, 3),
        ("a", "b", 1, "c"): ("a.yaml", 3, 11),
    }
    assert {path: spot[:3] for path, spot in document.values.items()} == {
        (): ("a.yaml", 2, 1),
        ("a",): ("a.yaml", 3, 3),
        ("a", "b"): ("a.yaml", 3, 6),
        ("a", "b", 0): ("a.yaml", 3, 7),
        ("a", "b", 1): ("a.yaml", 3, 10),
        ("a", "b", 1, "c"): ("a.yaml", 3, 14),
    }
    assert document.values["a", "b"].source == "  b: [1, {c: 2}]"


def test_anchors_and_merge_keys():
    document = read("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 5}\nw: {<<: *y}\nv: *x\n")
    assert document.data["z"] == {"a": 5, "b": 2, "c": 4}
    assert document.data["w"] == {"b": 3, "c": 4}
    assert document.data["v"] == {"a": 1, "b": 2}
    assert document.values["z", "c"].line == 2
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<: 3\n", "`<<` merges maps, and this is none"),
        ("1: a\n", "the key 1 is not text"),
        ("~: a\n", "the key ~ is not text"),
        ("[a]: a\n", "a key must be text, not a list or a map"),
        ("a: !!str 1\n", "tags such as tag:yaml.org,2002:str are not allowed"),
        ("a: !x 1\n", "tags such as !x are not allowed"),
        ("a: 1\na: 2\n", "duplicate key; the first one is at line 1"),
        ("a: 12:30\n", "12:30 is a number in base 60 to some readers of YAML and text to others"),
        ('a: "\\0"\n', "this text has a character that cannot be stored"),
        ('a: "\\ud800"\n', "this text has a character that cannot be stored"),
    ],
)
def test_readable_mistakes_are_collected(text, message):
    assert [problem.message for problem in read(text).problems] == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c\n", "not YAML: mapping values are not allowed here"),
        ("a: *b\n", "not YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "a second document starts here"),
        ('a: "\\U99999999"\n', "an escape in this text is not a character"),
        ("a: 'x\n", "not YAML: this is never closed"),
        ("a: &a [*a]\n", "aliases expand to more than"),
        ("a: &a {<<: *a}\n", "more than 50 levels deep"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("a: &a 1\nb: [" + "*a, " * 101 + "]", "more than 100 aliases"),
    ],
)
def test_unreadable_text_stops(text, message):
    assert message in message_of(text)


def test_alias_bomb_is_refused_fast():
    lines = ["a0: &a0 [" + "x, " * 9 + "]"]
    lines += [f"a{i}: &a{i} [" + f"*a{i - 1}, " * 9 + "]" for i in range(1, 9)]
    start = time.perf_counter()
    assert "aliases expand to more than 50000 keys and values" in message_of("\n".join(lines))
    assert time.perf_counter() - start < 5


def test_endless_lists_are_refused_while_they_are_read():
    assert "a.yaml:2:99995: error: more than 50000 keys and values" in message_of(
        "b: 1\na: [" + "1," * 400_000
    )


def test_huge_files_are_refused():
    with pytest.raises(ConfigProblems, match="1000001 bytes; a configuration has at most 1000000"):
        decode(b"a" * 1_000_001, "a.yaml")


def test_byte_order_marks():
    assert parse(decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "a.yaml")).data == {"a": 1, "b": 2}
    with pytest.raises(ConfigProblems, match="this is UTF-16"):
        decode("a: 1".encode("utf-16"), "a.yaml")


def test_empty_text_is_nothing():
    assert read("").data is None
    assert read("# only a comment\n").data is None
