"""Unreadable files and bad overrides give exactly this text; all mistakes come at once, in reading order."""

from pathlib import Path

import pytest
from error_text import HEAD, text_of

from rlhf_cli.config.load import load_config
from rlhf_cli.config.problems import ConfigProblems
from rlhf_cli.errors import ConfigError, MissingInputError, UsageError

CASES = {
    "duplicate key": (
        HEAD + "seed: 1\nlog: {}\nseed: 2\n",
        """\
a.yaml:6:1: error: seed: duplicate key; the first one is at line 4
     6 | seed: 2
       | ^
       = help: keep one of them""",
    ),
    "octal or decimal": (
        HEAD + "seed: 012\n",
        """\
a.yaml:4:7: error: seed: 012 is octal to some readers of YAML and decimal to others
     4 | seed: 012
       |       ^
       = help: quote it, "012", or write 12""",
    ),
    "tab": (
        "run_dir: runs/a\nmodel:\n\tpath: gpt2\n",
        """\
a.yaml:3:1: error: a tab cannot indent YAML
     3 |  path: gpt2
       | ^
       = help: use spaces""",
    ),
    "bad indentation": (
        "model:\n  path: gpt2\n dtype: auto\n",
        """\
a.yaml:3:2: error: not YAML: expected <block end>, but found '<block mapping start>'
     3 |  dtype: auto
       |  ^
       = help: the indentation does not match the lines above""",
    ),
    "open bracket": (
        "run_dir: a\ndata: [a, b\n",
        """\
a.yaml:2:7: error: not YAML: this is never closed
     2 | data: [a, b
       |       ^
       = help: close the quote or bracket""",
    ),
    "tag": (
        'run_dir: !!python/object/apply:os.system ["true"]\n' + HEAD[16:],
        """\
a.yaml:1:10: error: tags such as tag:yaml.org,2002:python/object/apply:os.system are not allowed
     1 | run_dir: !!python/object/apply:os.system ["true"]
       |          ^
       = help: remove the tag""",
    ),
    "list at the top": (
        "- run_dir\n",
        """\
a.yaml:1:1: error: a configuration is a map of `key: value` lines
     1 | - run_dir
       | ^
       = help: start with `run_dir: ...`""",
    ),
    "not UTF-8": (
        b"run_dir: a\nseed: \xe9t\xe9\n",
        """\
a.yaml:2:7: error: byte 0xe9 is not UTF-8
     2 | seed: \N{REPLACEMENT CHARACTER}t\N{REPLACEMENT CHARACTER}
       |       ^
       = help: save the file as UTF-8""",
    ),
    "NUL": (
        b"run_dir: a\0b\n",
        """\
a.yaml:1:11: error: character U+0000 is not allowed in YAML
     1 | run_dir: a\N{REPLACEMENT CHARACTER}b
       |           ^
       = help: remove it""",
    ),
    "unset environment variable": (
        HEAD.replace("gpt2", "'${env:NO_SUCH_NAME}/x'"),
        """\
a.yaml:2:15: error: model.path: the environment variable NO_SUCH_NAME is not set
     2 | model: {path: '${env:NO_SUCH_NAME}/x'}
       |               ^
       = help: set it, or give a default: ${env:NO_SUCH_NAME:-...}""",
    ),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES.keys())
def test_block(tmp_path, content, expected):
    assert text_of(tmp_path, content) == expected


SET_CASES = {
    "bad value": (
        "model.dtype=bf16",
        """\
--set: error: model.dtype: 'bf16' is not one of auto, float32, bfloat16
       | --set model.dtype=bf16
       |                   ^
       = help: did you mean `bfloat16`?""",
    ),
    "unknown key": (
        "train.lr=1",
        """\
--set: error: train.lr: unknown key
       | --set train.lr=1
       |       ^
       = help: this key belongs at `optim.lr`""",
    ),
    "no equals sign": (
        "train.epochs",
        """\
--set: error: not of the form key=value
       | --set train.epochs
       |       ^
       = help: write `--set optim.lr=1e-5`""",
    ),
    "index past the end": (
        "data.train.2.path=b",
        """\
--set: error: data.train: data.train is a list of 1, so `2` cannot be set in it
       | --set data.train.2.path=b
       |       ^
       = help: use an index from 0 to 1""",
    ),
    "bad YAML": (
        "model={path: x",
        """\
--set: error: not YAML: this is never closed
       | --set model={path: x
       |             ^
       = help: close the quote or bracket""",
    ),
    "no space in a map": (
        "model={path:x}",
        """\
--set: error: model.path:x: unknown key
       | --set model={path:x}
       |              ^
       = help: write a space after the colon: `path: x`""",
    ),
}


@pytest.mark.parametrize(("override", "expected"), SET_CASES.values(), ids=SET_CASES.keys())
def test_set_block(tmp_path, override, expected):
    assert text_of(tmp_path, HEAD, override) == expected


def test_all_mistakes_at_once_in_order(tmp_path, monkeypatch):
    content = "run_dir: a\neval: {max_rows: 012}\nmodel: {path: '${env:NO}'}\n"
    content += "seed: 1\nseed: x\noptim: {lr: -1, foo: 1}\n"
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(content)
    with pytest.raises(ConfigProblems) as caught:
        load_config("sft", Path("a.yaml"), ["train.epochs=0", "log.x=1"])
    where = [(problem.where, problem.key) for problem in caught.value.problems]
    assert where == [
        ("a.yaml", "data"),
        ("a.yaml:2:18", "eval.max_rows"),
        ("a.yaml:3:15", "model.path"),
        ("a.yaml:5:1", "seed"),
        ("a.yaml:5:7", "seed"),
        ("a.yaml:6:13", "optim.lr"),
        ("a.yaml:6:17", "optim.foo"),
        ("--set", "log.x"),
        ("--set", "train.epochs"),
    ]


def test_problems_are_records_for_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(HEAD + "seed: x\n")
    with pytest.raises(ConfigProblems) as caught:
        load_config("sft", Path("a.yaml"))
    (found,) = caught.value.problems
    assert (found.where, found.key, found.message, found.source, found.help) == (
        "a.yaml:4:7",
        "seed",
        "'x' is not a whole number",
        "seed: x",
        "",
    )
    assert (caught.value.where, caught.value.message) == ("a.yaml:4:7", "seed: 'x' is not a whole number")


def test_base_file_is_named(tmp_path):
    (tmp_path / "base.yaml").write_text("optim: {lr: fast}\n")
    text = text_of(tmp_path, "extends: base.yaml\n" + HEAD)
    assert text.startswith(
        "base.yaml:1:13: error: optim.lr: 'fast' is not a number\n     1 | optim: {lr: fast}\n"
    )


def test_long_lines_are_cut_around_the_caret(tmp_path):
    filler = ", ".join(f"{{path: file-{number}.jsonl}}" for number in range(60))
    text = text_of(tmp_path, HEAD.replace("[", f"[{filler}, {{path: x, foo: 1}}, {filler}, "))
    head, line, caret, _ = text.split("\n")
    assert head == "a.yaml:3:1396: error: data.train.60.foo: unknown key"
    assert len(line) == len("     3 | ") + 120
    assert line[caret.index("^") :].startswith("foo: 1}")


def test_caret_stands_under_wide_characters(tmp_path):
    text = text_of(tmp_path, HEAD.replace("gpt2", "模型, dtype: x"))
    assert text.split("\n")[2] == "       | " + " " * (25 + 2) + "^"


def test_run_dir_option_is_the_place(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(HEAD)
    with pytest.raises(ConfigError, match="--run-dir: error: run_dir: must not be empty"):
        load_config("sft", path, run_dir="")


def test_missing_file(tmp_path):
    with pytest.raises(MissingInputError, match="there is no such file") as caught:
        load_config("sft", tmp_path / "no.yaml")
    assert caught.value.exit_code == 66
    with pytest.raises(MissingInputError, match="this is a directory"):
        load_config("sft", tmp_path)


def test_unknown_stage():
    with pytest.raises(UsageError, match="use one of sft, collect, train-rm, ppo, dpo"):
        load_config("rm", Path("a.yaml"))
