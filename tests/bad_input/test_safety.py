"""What must never happen: a secret on disk or on the screen, a file outside the run, code from data or models."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell

HF = "hf_" + "CanaryCanary" * 3
OPENAI = "sk-canary-" + "0123456789abcdef"
WORD = "canary with spaces"
CANARIES = (HF, OPENAI, WORD)
PACKAGE = Path(__file__).parents[2] / "rlhf_cli"

LEAKY = """
import os

def f(prompt, completion, extra):
    raise ValueError("GET failed with " + os.environ["HF_TOKEN"] + os.environ["WIKI_PASSWORD"])
"""


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI)
    monkeypatch.setenv("WIKI_PASSWORD", WORD)


def leaks(folder: Path, said: str) -> Iterator[str]:
    for canary in CANARIES:
        if canary in said:
            yield f"{canary} on the screen"
        for path in folder.rglob("*"):
            if path.is_file() and canary.encode() in path.read_bytes():
                yield f"{canary} in {path}"


def test_secrets_of_the_environment_leave_no_trace(shell: Shell, canaries: None):
    """They come in by interpolation, literally in the file, by --set, and in an error that a user's code raises."""
    (shell.folder / "leaky.py").write_text(LEAKY)
    changes = {
        "reward": [
            {"kind": "function", "function": "leaky.py:f"},
            {"kind": "regex", "pattern": "${env:WIKI_PASSWORD}"},
            {"kind": "regex", "pattern": OPENAI},
        ]
    }
    more = ("--set", f"reward.2.pattern={HF}", "--json")
    code, said = shell.run("ppo", *more, **changes)
    assert code == 65
    assert "leaky.py:f raised ValueError" in said
    _, again = shell.run("ppo", *more, **changes, seed=1)  # a conflict, which lists the keys that differ
    _, planned = shell.run("ppo", "--dry-run", *more[:2], **changes)
    assert (shell.folder / "ppo" / "manifest.json").exists()
    assert not list(leaks(shell.folder / "ppo", said + again + planned))


def test_a_bug_with_a_secret_in_it(shell: Shell, canaries: None, monkeypatch: pytest.MonkeyPatch):
    from rlhf_cli.cli import main
    from rlhf_cli.stages import sft

    def fail(*_: object) -> None:
        raise ZeroDivisionError(f"while talking to {HF} and {WORD}")

    assert shell.run("sft", "--dry-run")[0] == 0  # writes the configuration
    monkeypatch.setattr(sft, "prepare", fail)
    assert main(["sft", "--config", "config.yaml"]) == 1
    [crash] = Path("sft").glob("crash-*.txt")
    assert "in fail" in crash.read_text()
    assert not list(leaks(shell.folder / "sft", "".join(shell.capture.readouterr())))


def test_the_canary_test_can_fail(shell: Shell, tmp_path: Path):
    (tmp_path / "log.txt").write_text(f"the key is {HF}")
    assert list(leaks(tmp_path, WORD)) == [f"{HF} in {tmp_path / 'log.txt'}", f"{WORD} on the screen"]


def test_remote_code_is_asked_for_by_the_configuration_or_not_at_all():
    """Every `trust_remote_code` in the package is passed on from the section that demands a pinned revision."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                found.append((path.name, ast.unparse(node.value)))
    assert found
    assert {value for _, value in found} <= {"section.trust_remote_code", "trust_remote_code", "False"}


def test_templates_run_in_the_sandbox_only():
    """The package's own pages aside, nothing in it makes a Jinja environment: models' templates are transformers'."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith("Environment")
    }
    assert users == {"preference/web/site.py", "run/report/page.py", "tools/init.py", "tools/slurm.py"}


def test_a_manifest_that_names_a_result_elsewhere_is_not_believed(shell: Shell):
    assert shell.run("sft", train__max_steps=2)[0] == 0
    manifest = shell.folder / "sft" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"artifact": "model"', '"artifact": "../../etc"'))
    code, _ = shell.run("sft", train__max_steps=2)
    assert code == 0
    assert '"artifact": "model"' in manifest.read_text()
