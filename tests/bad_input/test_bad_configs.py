"""Configurations that people and scripts get wrong: exit 78 (or what fits better), the place, and the way out."""

import json
import os
from pathlib import Path

import pytest
from shell import Shell

GOOD = """\
run_dir: run
model: {path: some/model}
data: {train: [{path: rows.jsonl}]}
loss: {on: completion}
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "optim: {learing_rate: 1.0}\n", "learing_rate"),
        (GOOD + "optim: {lr: .nan}\n", "config.yaml:5"),
        (GOOD + "optim: {lr: .inf}\n", "config.yaml:5"),
        (GOOD + "optim: {lr: -1}\n", "greater than 0"),
        (GOOD + "optim: {lr: true}\n", "optim.lr"),
        (GOOD + "optim: {lr: fast}\n", "optim.lr"),
        (GOOD + "seed: 1\nseed: 2\n", "duplicate key"),
        (GOOD + "seed: 010\n", "octal"),
        (GOOD + "seed: 12:30:45\n", "base 60"),
        (GOOD + "seed: 1.5\n", "seed"),
        (GOOD + "seed: -1\n", "seed"),
        (GOOD + "seed: ${env:NO_SUCH_VARIABLE}\n", "NO_SUCH_VARIABLE is not set"),
        (GOOD + "train: {max_steps: 0}\n", "max_steps"),
        (GOOD + "checkpoint: {keep: 0}\n", "keep"),
        (GOOD + "train:\n\tmax_steps: 3\n", "a tab cannot indent YAML"),
        (GOOD + "log: [\n", "never closed"),
        (GOOD + "log: {every_steps: 1\n", "config.yaml:"),
        ("\ufeff" + GOOD + "seed: x\n", "seed"),
        (GOOD + "model2: \0\n", "not allowed in YAML"),
        (b"run_dir: \xe9\n", "byte 0xe9 is not UTF-8"),
        ("run_dir: x\n".encode("utf-16"), "UTF-16"),
        (BOMB, "aliases"),
        ("[" * 5000, "nested more than"),
        ("a: b\n" * 300_000, "at most 1000000"),
        ("run_dir: !!python/object/apply:os.system [touch pwned]\n", "tags such as"),
        ("", "run_dir"),
        ("- a\n", "a configuration is a map"),
        ("plain text\n", "a configuration is a map"),
        (GOOD + "extends: config.yaml\n", "in a circle"),
        (GOOD + "extends: nowhere.yaml\n", "nowhere.yaml"),
        (GOOD + "---\nseed: 1\n", "a second document"),
        (GOOD.replace("some/model}", "a, trust_remote_code: true}"), "40 hex digits"),
        (GOOD.replace("some/model}", "a, trust_remote_code: true, revision: main}"), "40 hex digits"),
        (GOOD.replace("rows.jsonl}]", "rows.jsonl}], eval: [{path: x}], eval_fraction: 0.1"), "excludes data.eval"),
        (GOOD.replace("run_dir: run", "run_dir: ''"), "run_dir"),
        (GOOD.replace("run_dir: run", 'run_dir: "a\\0b"'), "cannot be stored"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_wrong(text: str | bytes, says: str, shell: Shell):
    content = text.encode() if isinstance(text, str) else text
    (shell.folder / "config.yaml").write_bytes(content)
    for command in (("check", "--stage", "sft"), ("sft",)):
        code, said = shell.rlhf(*command, "--config", "config.yaml")
        assert code == 78
        assert says in said
    assert [path.name for path in shell.folder.iterdir()] == ["config.yaml"]


def test_numbers_in_scientific_notation_and_a_bom_are_fine(shell: Shell):
    (shell.folder / "config.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"optim: {lr: 1e-5}\n")
    assert shell.rlhf("check", "--stage", "sft", "--config", "config.yaml")[0] == 0


@pytest.mark.parametrize(("path", "code"), [("nowhere.yaml", 66), (".", 66), ("config.yaml/x", 66)])
def test_a_configuration_that_is_not_there(path: str, code: int, shell: Shell):
    (shell.folder / "config.yaml").write_text(GOOD)
    assert shell.rlhf("sft", "--config", path)[0] == code


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_configuration_that_may_not_be_read(shell: Shell):
    (shell.folder / "config.yaml").write_text(GOOD)
    (shell.folder / "config.yaml").chmod(0)
    assert shell.rlhf("sft", "--config", "config.yaml")[0] == 66


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--set", "optim.lr"], 78),
        (["--set", "optim.lr=abc"], 78),
        (["--set", "=1"], 78),
        (["--set", "optim.lr=[["], 78),
        (["--set", "run_dir=a\udcffb"], 78),
        (["--run-dir", "a\udcffb"], 78),
        (["--frobnicate"], 2),
    ],
)
def test_a_command_line_that_is_wrong(arguments: list[str], code: int, shell: Shell):
    (shell.folder / "config.yaml").write_text(GOOD)
    assert shell.rlhf("sft", "--config", "config.yaml", *arguments)[0] == code


@pytest.mark.parametrize("run_dir", ["x" * 300, "config.yaml", "config.yaml/run", "full", "/proc/no/run"])
def test_a_run_directory_that_cannot_be(run_dir: str, shell: Shell):
    (shell.folder / "full").mkdir()
    (shell.folder / "full" / "thesis.txt").write_text("mine")
    code, said = shell.run("sft", run_dir=run_dir)
    assert code == 73
    assert "run_dir" in said
    assert [path.name for path in (shell.folder / "full").iterdir()] == ["thesis.txt"]


def test_two_processes_in_one_run_directory(shell: Shell):
    from rlhf_cli.run.claim import RunSpec, claim_directory

    spec = RunSpec("sft", Path("sft"), digest="", tree={})
    with claim_directory(spec, fresh=False, differing_keys=lambda old, new: []):
        code, said = shell.run("sft", run_dir="sft")
    assert code == 73
    assert f"in use by pid {os.getpid()}" in said


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": 3}', b"\xff\xfe", b"null"])
def test_a_manifest_that_is_damaged(content: bytes, shell: Shell):
    (shell.folder / "sft").mkdir()
    (shell.folder / "sft" / "manifest.json").write_bytes(content)
    assert shell.run("sft")[0] == 73
    assert (shell.folder / "sft" / "manifest.json").read_bytes() == content


def test_json_output_of_a_wrong_configuration(shell: Shell):
    (shell.folder / "config.yaml").write_text(GOOD + "seed: x\n")
    assert main_json(shell)["exit_code"] == 78


def main_json(shell: Shell) -> dict[str, object]:
    from rlhf_cli.cli import main

    main(["sft", "--config", "config.yaml", "--json"])
    result: dict[str, object] = json.loads(shell.capture.readouterr().out)
    return result
