"""`kind: constitution` from prompts to rows, on a tiny model with a scripted critic behind HTTP."""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Answer, Body, ChatServer, serving
from tiny import Tiny

from rlhf_cli.cli import main
from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons, read_demonstrations

PRINCIPLES = """
- {id: short, critique: Is it long, revision: Shorten it.}
- {id: kind, critique: Is it unkind, revision: Be kind.}
"""


def shown(body: Body) -> tuple[str, str, str]:
    """Return the prompt, the answer and the criticism that a request is about, the last empty for a critique."""
    text = str(body["messages"][-1]["content"])  # type: ignore[index]
    found = [
        re.search(rf"<{name}-([0-9a-f]{{10}})>\n(.*?)\n</{name}-\1>", text, re.DOTALL)
        for name in ("conversation", "answer", "criticism")
    ]
    prompt, answer, critique = (match[2] if match else "" for match in found)
    return prompt, answer, critique


def critic(body: Body, _: int) -> Answer:
    prompt, answer, critique = shown(body)
    if not critique:
        return Answer(f"The answer to {prompt!r} is unkind.")
    return Answer(f"{prompt}: dear" if "dear" not in answer else f"{answer} friend")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(critic) as server:
        yield server


@pytest.fixture
def place(work: Path, tiny: Tiny, upstream: Path, server: ChatServer) -> Path:
    Path("principles.yaml").write_text(PRINCIPLES)
    Path("collect.yaml").write_text(
        f"""
run_dir: run
kind: constitution
prompts: [{{path: {tiny.prompts}}}]
candidates: [{{path: {upstream}/sft, temperature: 0}}]
generation: {{max_new_tokens: 12}}
constitution:
  chat: {{kind: server, url: "{server.url}", model: m}}
  principles: principles.yaml
  rounds: 2
"""
    )
    return work


def rlhf(*arguments: str) -> int:
    return main(["collect", "--config", "collect.yaml", *arguments])


def lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("run", name).read_text().splitlines()]


def test_final_revisions_become_demonstrations_and_are_preferred_to_first_answers(
    place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
):
    assert rlhf() == 0
    assert capsys.readouterr().out == "run/demonstrations.jsonl\n"
    with sqlite3.connect("run/collect.db") as db:
        first = dict(
            db.execute(
                "SELECT content, text FROM responses JOIN prompts ON prompts.id = prompt_id"
            ).fetchall()
        )
    assert len(first) == 12
    for demonstration, preference in zip(
        lines("demonstrations.jsonl"), lines("preferences.jsonl"), strict=True
    ):
        prompt = demonstration["prompt"]
        assert demonstration["completion"] == preference["chosen"] == f"{prompt}: dear friend"
        assert preference["rejected"] == first[json.dumps(prompt)]
        assert set(demonstration["principles"]) == {"short", "kind"}  # type: ignore[call-overload]
    steps = lines("export/steps.jsonl")
    assert [(step["prompt_id"], step["number"]) for step in steps] == [
        (i, n) for i in range(1, 13) for n in (1, 2)
    ]
    assert {step["model"] for step in steps} == {"m"}
    assert len(server.bodies) == 48
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["result"]["metrics"]["num_revised"] == 24
    assert manifest["extra"]["constitution"]["principles_sha256"]


def test_the_run_is_read_by_sft_as_demonstrations_and_by_the_others_as_pairs(place: Path):
    assert rlhf() == 0
    demonstrations = read_demonstrations([Source(path="run")]).records
    comparisons = read_comparisons([Source(path="run")]).records
    assert [it.completion for it in demonstrations] == [it.chosen for it in comparisons]
    assert len(demonstrations) == 12


def test_a_broken_run_goes_on_and_pays_nothing_twice(place: Path, server: ChatServer):
    server.script = lambda body, number: Answer(status=401) if number >= 31 else critic(body, number)
    assert rlhf() == 69
    assert not Path("run/demonstrations.jsonl").exists()
    with sqlite3.connect("run/collect.db") as db:
        (paid,) = db.execute("SELECT COUNT(*) FROM calls").fetchone()
    asked = len(server.bodies)
    server.script = critic
    assert rlhf() == 0
    assert len(server.bodies) - asked == 48 - paid
    assert len(lines("demonstrations.jsonl")) == 12


def test_answers_that_stay_the_same_give_no_row(
    place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
):
    def stubborn(body: Body, number: int) -> Answer:
        prompt, answer, critique = shown(body)
        return Answer(answer if critique and "number 3" in prompt else critic(body, number).content)

    server.script = stubborn
    assert rlhf() == 0
    assert len(lines("demonstrations.jsonl")) == len(lines("preferences.jsonl")) == 10
    assert "10 of 12 answers revised" in capsys.readouterr().err


def test_nothing_revised_is_an_error_that_names_the_trace(
    place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
):
    server.script = lambda body, number: Answer("")
    assert rlhf() == 65
    assert "run/export/steps.jsonl" in capsys.readouterr().err
    assert not Path("run/demonstrations.jsonl").exists()


def test_many_refusals_are_warned_of(place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]):
    server.script = lambda body, number: Answer("I'm sorry, but I can't." if shown(body)[2] else "Bad.")
    assert rlhf() == 0
    assert "learns to decline" in capsys.readouterr().err


def test_other_principles_are_refused_after_the_first_step(place: Path, server: ChatServer):
    server.script = lambda body, number: Answer(status=401) if number >= 31 else critic(body, number)
    assert rlhf() == 69
    Path("principles.yaml").write_text(PRINCIPLES.replace("Be kind.", "Be unkind."))
    assert rlhf() == 73


def test_what_has_no_effect_or_is_missing_is_refused(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--set", "labeler={kind: web}", "--set", "candidates=[{path: a}, {path: b}]") == 78
    told = capsys.readouterr().err
    assert "labeler" in told
    assert "candidates.1" in told
    assert rlhf("--set", "constitution=null") == 78
    assert "required with kind: constitution" in capsys.readouterr().err
    assert rlhf("--set", "kind=preferences") == 78
    assert "no effect with kind: preferences" in capsys.readouterr().err


def test_a_dry_run_counts_the_calls(place: Path, capsys: pytest.CaptureFixture[str], server: ChatServer):
    assert rlhf("--dry-run") == 0
    assert "critiques: 24, and as many revisions, in 2 rounds" in capsys.readouterr().out
    assert server.bodies == []


def test_a_local_model_without_room_fails_step_by_step_and_says_why(place: Path, upstream: Path):
    assert rlhf("--set", f"constitution.chat={{kind: local, path: {upstream}/sft}}") == 65
    steps = lines("export/steps.jsonl")
    assert {step["outcome"] for step in steps} == {"failed"}
    assert all("exceed 64 tokens" in str(step["revision"]) for step in steps)
    assert len(steps) == 24
