"""Base files, overrides and environment references, and the places their values keep."""

from pathlib import Path

import pytest

from rlhf_cli.config.compose import compose
from rlhf_cli.config.problems import ConfigProblems
from rlhf_cli.config.yaml_source import Document


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tree(*overrides: str, run_dir: str | None = None, **files: str) -> Document:
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)
    return compose(Path("a.yaml"), overrides, run_dir)[0]


def first_message(document: Document) -> str:
    return document.problems[0].message


def test_maps_merge_and_lists_are_replaced():
    document = tree(
        base="x: {a: 1, b: [1, 2], c: {d: 3}}\ny: 4\n",
        a="extends: base.yaml\nx: {b: [9], c: {e: 5}}\ny: {z: 6}\n",
    )
    assert document.data == {"x": {"a": 1, "b": [9], "c": {"d": 3, "e": 5}}, "y": {"z": 6}}
    assert document.values["x", "a"][:2] == ("base.yaml", 1)
    assert document.values["x", "c", "e"][:2] == ("a.yaml", 2)
    assert ("x", "b", 1) not in document.values


def test_later_base_files_win():
    document = tree(b="x: 1\ny: 1\nz: 1\n", c="x: 2\ny: 2\n", a="extends: [b.yaml, c.yaml]\nx: 3\n")
    assert document.data == {"x": 3, "y": 2, "z": 1}


def test_base_path_is_relative_to_its_file():
    Path("deep").mkdir()
    Path("deep/c.yaml").write_text("x: 1\n")
    Path("deep/b.yaml").write_text("extends: c.yaml\n")
    assert tree(a="extends: deep/b.yaml\n").data == {"x": 1}


def test_two_ways_to_one_base_are_no_circle():
    document = tree(d="x: 1\n", b="extends: d.yaml\n", c="extends: d.yaml\n", a="extends: [b.yaml, c.yaml]\n")
    assert document.data == {"x": 1}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"a": "extends: a.yaml\n"},
            "a.yaml:1:10: error: extends: files extend each other in a circle: a.yaml -> a.yaml",
        ),
        (
            {"a": "extends: b.yaml\n", "b": "x: 1\nextends: a.yaml\n"},
            "b.yaml:2:10: error: extends: files extend each other in a circle: a.yaml -> b.yaml -> a.yaml",
        ),
        (
            {"a": "extends: no.yaml\n"},
            "a.yaml:1:10: error: extends: configuration no.yaml: there is no such file",
        ),
        (
            {"a": "extends: [b.yaml, 3]\n", "b": ""},
            "a.yaml:1:19: error: extends: takes a file name or a list of",
        ),
    ],
)
def test_bad_extends(files, text):
    with pytest.raises(ConfigProblems) as caught:
        tree(**files)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("override", "data"),
    [
        ("x.y=1e-5", {"x": {"y": 1e-5, "z": [1, 2]}, "l": [{"p": 1}]}),
        ("x.new=on", {"x": {"y": 0, "z": [1, 2], "new": "on"}, "l": [{"p": 1}]}),
        ("x={q: 1}", {"x": {"q": 1}, "l": [{"p": 1}]}),
        ("x.z.1=7", {"x": {"y": 0, "z": [1, 7]}, "l": [{"p": 1}]}),
        ("x.z.2=7", {"x": {"y": 0, "z": [1, 2, 7]}, "l": [{"p": 1}]}),
        ("l.0.p=2", {"x": {"y": 0, "z": [1, 2]}, "l": [{"p": 2}]}),
        ("l.1.p=2", {"x": {"y": 0, "z": [1, 2]}, "l": [{"p": 1}, {"p": 2}]}),
        ("m.0.p=2", {"x": {"y": 0, "z": [1, 2]}, "l": [{"p": 1}], "m": [{"p": 2}]}),
        ("x=", {"x": None, "l": [{"p": 1}]}),
        ("x.y=a=b", {"x": {"y": "a=b", "z": [1, 2]}, "l": [{"p": 1}]}),
    ],
)
def test_set(override, data):
    document = tree(override, a="x: {y: 0, z: [1, 2]}\nl: [{p: 1}]\n")
    assert not document.problems
    assert document.data == data


def test_later_overrides_win_and_see_earlier_ones():
    document = tree("x=1", "x=2", "y.0=a", "y.1=b", a="{}")
    assert document.data == {"x": 2, "y": ["a", "b"]}
    assert document.values["y", 1] == ("--set", 0, 11, "--set y.1=b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("x..y=1", "a part of the key is empty"),
        ("extends=b.yaml", "extends stands in a file, not in --set"),
        ("x.y=1", "x is a single value, so there is no `y` in it"),
        ("l.2=1", "l is a list of 1, so `2` cannot be set in it"),
        ("l.name=1", "l is a list of 1, so `name` cannot be set in it"),
        ("n.1=1", "n is a list of 0, so `1` cannot be set in it"),
    ],
)
def test_bad_set(override, message):
    assert first_message(tree(override, a="x: 3\nl: [1]\n")) == message


def test_environment(monkeypatch):
    monkeypatch.setenv("STEPS", "12")
    monkeypatch.setenv("EMPTY", "")
    document = tree(
        "set=${env:STEPS}",
        a="""\
number: ${env:STEPS}
text: '${env:STEPS}'
inside: runs/${env:STEPS}/${env:NOT_SET:-none}
fallback: ${env:NOT_SET:-1e-3}
bash: ${env:EMPTY:-full}
empty: ${env:EMPTY}
literal: $${env:STEPS}
""",
    )
    assert not document.problems
    assert document.data == {
        "number": 12,
        "text": "12",
        "inside": "runs/12/none",
        "fallback": 1e-3,
        "bash": "full",
        "empty": None,
        "literal": "${env:STEPS}",
        "set": 12,
    }


def test_an_overridden_reference_is_never_looked_up():
    document = tree("y=2", base="x: ${env:NOT_SET}\ny: ${env:NOT_SET}\n", a="extends: base.yaml\nx: 1\n")
    assert not document.problems
    assert document.data == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: ${env:NOT_SET}\n", "the environment variable NOT_SET is not set"),
        ("x: a${model.path}b\n", "only ${env:NAME} and ${env:NAME:-default} can stand here"),
        ("x: ${env:ZERO}\n", "012 is octal to some readers of YAML and decimal to others"),
    ],
)
def test_bad_reference(text, message, monkeypatch):
    monkeypatch.setenv("ZERO", "012")
    document = tree(a=text)
    assert first_message(document) == message
    assert document.problems[0].where == "a.yaml:1:4"


def test_run_dir_option_wins_and_is_literal():
    document = tree("run_dir=b", a="run_dir: ${env:NOT_SET}\n", run_dir="c/${env:X}")
    assert not document.problems
    assert document.data == {"run_dir": "c/${env:X}"}
    assert document.values["run_dir",].file == "--run-dir"
