"""`rlhf generate`, `compare` and `chat` on a tiny model that has learned to answer and stop."""

import io
import json
import sys
from pathlib import Path

import pytest
from tiny import Tiny, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cli.cli import main

PROMPT = "Color of the fox number 0: "


@pytest.fixture
def rlhf(capsys, work):
    def call(*arguments: object, code: int = 0) -> str:
        assert main([*map(str, arguments)]) == code
        streams = capsys.readouterr()
        return streams.out if code == 0 else streams.err

    return call


def test_greedy_answers_are_those_of_plain_transformers(runs: Path, rlhf):
    greedy = ("--set", "temperature=0", "--set", "max_new_tokens=8")
    record = json.loads(rlhf("generate", runs / "sft", "--prompt", PROMPT, *greedy, "--json"))
    (answer,) = record["answers"]
    tokenizer = AutoTokenizer.from_pretrained(runs / "sft/model")
    model = AutoModelForCausalLM.from_pretrained(runs / "sft/model")
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    theirs = model.generate(ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
    assert answer["completion"] == tokenizer.decode(theirs, skip_special_tokens=True)
    assert answer["num_tokens"] == len(theirs)
    assert answer["prompt"] == PROMPT


def test_rows_written_are_read_by_other_commands(tiny: Tiny, runs: Path, rlhf):
    models = (runs / "sft", runs / "lora")
    out = rlhf("generate", *models, "--prompts", tiny.prompts, "--limit", 3, "--out", "a.jsonl")
    assert out == "a.jsonl\n"
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == [str(model) for model in models] * 3
    assert "prompt_completion" in rlhf("data", "show", "a.jsonl")
    assert "exists" in rlhf("generate", *models, "--prompt", "x", "--out", "a.jsonl", code=73)


def test_samples_differ_and_a_seed_repeats_them(runs: Path, rlhf):
    def answers(seed: int) -> list[str]:
        settings = ("--set", f"seed={seed}", "--set", "samples=3", "--set", "max_new_tokens=8")
        settings += ("--set", "temperature=2")
        text = rlhf("generate", runs / "sft", "--prompt", "Color", *settings, "--json")
        return [it["completion"] for it in json.loads(text)["answers"]]

    assert answers(0) == answers(0) != answers(1)
    assert len(set(answers(0))) > 1


def test_a_prompt_comes_from_stdin_too(runs: Path, rlhf, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    text = rlhf("generate", runs / "sft", "--set", "temperature=0", "--set", "max_new_tokens=8")
    assert text.startswith(f"--- prompt 1\n{PROMPT}\nit is ")


def test_compare_puts_two_models_side_by_side(tiny: Tiny, runs: Path, rlhf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("compare", runs / "sft", runs / "lora", "--prompts", tiny.prompts, "--limit", 2)
    page = rlhf(*arguments, "--set", "max_new_tokens=8")
    lines = page.splitlines()
    assert sum(line.startswith("---") for line in lines) == 2
    assert all(len(line) <= 80 and " │ " in line for line in lines if "it is" in line)
    assert any(line.count("tokens)") == 2 for line in lines)


def test_chat_streams_answers_and_obeys_commands(runs: Path, rlhf, monkeypatch):
    lines = [
        "/help",
        "/temperature 0",
        PROMPT,
        "Color of the \\",
        "boat number 0: ",
        "/nonsense",
        "/quit",
        "never",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    text = rlhf("chat", runs / "sft", "--set", "max_new_tokens=8")
    assert text.count("/reset") == 2  # asked for, and after nonsense
    assert text.count("it is") == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PROMPT}\n"))
    both = rlhf("chat", runs / "sft", runs / "lora", "--set", "max_new_tokens=8", "--set", "template=chat")
    assert f"[{runs / 'lora'}]" in both


def test_a_run_on_conversations_is_asked_in_turns(tiny: Tiny, runs: Path, rlhf, capsys, work):
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}]
    settings = tiny.settings("sft", data__train=[{"path": write_rows(work / "m.jsonl", rows)}])
    settings["train"] |= {"max_steps": 1, "batch_size": 1}
    (work / "sft.yaml").write_text(json.dumps(settings))
    rlhf("sft", "--config", "sft.yaml")
    assert main(["generate", "sft", str(runs / "sft"), "--prompt", "hi", "--set", "max_new_tokens=2"]) == 0
    said = capsys.readouterr().err
    assert "sft: prompts go in as a user's turn" in said
    assert f"{runs / 'sft'}: prompts go in as plain text" in said


def test_wrong_use_is_refused(tiny: Tiny, runs: Path, rlhf):
    assert "Did you mean temperature?" in rlhf("generate", "x", "--set", "temprature=1", code=2)
    assert "greater than" in rlhf("generate", "x", "--set", "top_p=0", code=2)
    assert "exclude" in rlhf("generate", "x", "-p", "a", "--prompts", tiny.prompts, code=2)
    assert "empty" in rlhf("generate", "x", "-p", " ", code=66)
    assert "no model" in rlhf("generate", "./none", "-p", "a", code=66)
    assert "leaves room" in rlhf("generate", runs / "sft", "-p", "a" * 200, code=65)
