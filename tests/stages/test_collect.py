"""The whole of `rlhf collect` on a tiny random model, with rules as labelers, through the command line."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf_cli.cli import main
from rlhf_cli.config.sections import FromScratch, Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.errors import Preempted
from rlhf_cli.models.load import make_policy, make_vocabulary
from rlhf_cli.models.save import save_model
from rlhf_cli.records import Message
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.stages import answering, collect

WORDS = "the red fox runs over a hill and sees the blue sea while it sings of old days"
PROMPTS = [f"Tell me of {word}" for word in WORDS.split()]
RULES = """
import os, signal, time
from pathlib import Path

calls = 0

def shorter_until_stopped(prompt, first, second, extra):
    global calls
    calls += 1
    if calls == 4 and not Path("again").exists():
        os.kill(os.getpid(), signal.SIGTERM)
    return float(len(first) < len(second)) if len(first) != len(second) else 0.5

def slow(prompt, first, second, extra):
    assert prompt.startswith("Tell me of ") and extra == {"color": "red"}
    time.sleep(0.05)
    return 1.0

def tie(prompt, first, second, extra):
    return 0.5
"""

Collect = Callable[..., int]


def save_tiny(folder: Path, seed: int) -> None:
    section = FromScratch(hidden_size=16, num_layers=1, num_heads=2, vocab_size=300, max_positions=96)
    torch.manual_seed(seed)
    vocabulary = make_vocabulary(section, PROMPTS)
    save_model(make_policy(section, vocabulary).model, vocabulary, folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        save_tiny(folder / f"model{seed}", seed)
    return folder


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with prompts, rules and a configuration of few short answers."""
    monkeypatch.chdir(tmp_path)
    unique = list(dict.fromkeys(PROMPTS))
    rows = [{"prompt": prompt, "color": "red"} for prompt in unique]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("rules.py").write_text(RULES)
    Path("collect.yaml").write_text(
        f"""
run_dir: run
kind: preferences
prompts: [{{path: prompts.jsonl}}]
candidates: [{{path: {models}/model0, temperature: 1.0}}]
labeler: {{kind: rule, function: "rlhf_cli.preference.rules:longer"}}
generation: {{max_new_tokens: 8, batch_size: 5}}
limit: 12
"""
    )
    return tmp_path


def rlhf(*arguments: str) -> int:
    return main(["collect", "--config", "collect.yaml", *arguments])


def rows(run: str = "run") -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(run, "preferences.jsonl").read_text().splitlines()]


def result(run: str = "run") -> dict[str, float]:
    metrics: dict[str, float] = json.loads(Path(run, "manifest.json").read_text())["result"]["metrics"]
    return metrics


def ask(query: str, run: str = "run") -> list[tuple[object, ...]]:
    with sqlite3.connect(Path(run, "collect.db")) as db:
        return db.execute(query).fetchall()


def test_the_longer_answer_is_chosen_in_every_row(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf() == 0
    assert capsys.readouterr().out == "run/preferences.jsonl\n"
    reading = read_comparisons([Source(path="run/preferences.jsonl")])
    assert len(reading.records) == len(rows()) == result()["decided"] > 6
    assert all(len(str(r.chosen)) > len(str(r.rejected)) for r in reading.records)
    assert {r.prompt for r in reading.records} <= set(PROMPTS)
    metrics = result()
    assert metrics["num_pairs"] == 12
    assert metrics["num_votes"] == 12 - metrics["identical_pairs"] == metrics["decided"] + metrics["ties"]
    assert metrics["chosen_longer_rate"] == 1.0
    assert 0 < metrics["first_shown_win_rate"] < 1
    cut = ask("SELECT avg(finish_reason = 'length') FROM responses")[0][0]
    assert metrics["unfinished_rate"] == cut


def test_answers_hold_neither_prompt_nor_eos(place: Path):
    assert rlhf() == 0
    texts = [str(text) for (text,) in ask("SELECT text FROM responses")]
    assert len(texts) == 24
    assert not any("Tell me" in text or "<|end|>" in text for text in texts)
    assert set(ask("SELECT DISTINCT first FROM presentations")) == {(1,), (2,)}
    assert ask("SELECT COUNT(DISTINCT seed) FROM responses") == [(24,)]


def test_the_same_command_again_does_nothing(place: Path, monkeypatch: pytest.MonkeyPatch):
    assert rlhf() == 0
    before = Path("run/preferences.jsonl").read_bytes()
    monkeypatch.setattr(collect, "run", None)
    assert rlhf() == 0
    assert Path("run/preferences.jsonl").read_bytes() == before


def test_the_same_seed_gives_the_same_preferences(place: Path):
    assert [rlhf("--run-dir", name) for name in ("a", "b")] == [0, 0]
    assert rows("a") == rows("b")
    assert rlhf("--run-dir", "c", "--set", "seed=1") == 0
    assert rows("c") != rows("a")


def test_stopped_while_voting_goes_on_without_the_model(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rule = ("--set", "labeler.function=rules.py:shorter_until_stopped")
    assert rlhf(*rule) == 75
    assert "4 votes saved" in capsys.readouterr().err
    assert ask("SELECT COUNT(*) FROM votes") == [(4,)]
    assert not Path("run/preferences.jsonl").exists()
    Path("again").touch()
    monkeypatch.setattr(answering, "load_policy_for_sampling", None)
    monkeypatch.setattr(answering, "choose_prompts", None)
    assert rlhf(*rule) == 0
    monkeypatch.undo()
    os.chdir(place)
    assert rlhf(*rule, "--run-dir", "straight") == 0
    assert rows() == rows("straight")


def test_stopped_while_sampling_keeps_whole_batches(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    generate = TransformersEngine.generate
    calls = []

    def third_time_stopped(engine: TransformersEngine, *request: object) -> object:
        calls.append(request)
        if len(calls) == 3:
            raise Preempted("interrupted while sampling")
        return generate(engine, *request)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", third_time_stopped)
        assert rlhf() == 75
    assert "10 of 24 answers" in capsys.readouterr().err
    assert ask("SELECT COUNT(*) FROM responses") == [(10,)]
    assert rlhf() == 0
    assert rlhf("--run-dir", "straight") == 0
    assert rows() == rows("straight")


def test_kill_9_while_voting_loses_nothing(place: Path):
    rule = ("--set", "labeler.function=rules.py:slow")
    command = [sys.executable, "-m", "rlhf_cli", "collect", "--config", "collect.yaml", *rule]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (
        not Path("run/collect.db").exists()
        or not ask("SELECT 1 FROM sqlite_master WHERE name = 'votes'")
        or (
            ask("SELECT COUNT(*) FROM votes")[0][0] < 3  # type: ignore[operator]
        )
    ):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = ask("SELECT pair_id, winner FROM judgements JOIN presentations AS p ON p.id = presentation_id")
    assert rlhf(*rule) == 0
    after = ask("SELECT pair_id, winner FROM judgements JOIN presentations AS p ON p.id = presentation_id")
    assert after[: len(kept)] == kept
    assert len(after) == len({pair for pair, _ in after}) == result()["num_votes"]
    assert result()["first_shown_win_rate"] == 1.0


def test_two_candidates_answer_once_each(place: Path, models: Path):
    two = f'[{{path: "{models}/model0", temperature: 0.5}}, {{path: "{models}/model1", temperature: 2.0}}]'
    assert rlhf("--set", f"candidates={two}") == 0
    assert ask("SELECT DISTINCT candidate, sample, temperature FROM responses ORDER BY 1") == [
        (0, 0, 0.5),
        (1, 0, 2.0),
    ]
    sources = [row["source"] for row in rows()]
    seen = {(s["chosen"]["model"][-1], s["chosen"]["temperature"]) for s in sources}  # type: ignore[index,call-overload]
    assert seen <= {("0", 0.5), ("1", 2.0)}
    assert len(json.loads(Path("run/manifest.json").read_text())["parents"]) == 2


def test_a_chat_template_makes_conversations_of_plain_prompts(place: Path):
    assert rlhf("--set", "template=chat", "--set", "max_prompt_length=80") == 0
    record = read_comparisons([Source(path="run/preferences.jsonl")]).records[0]
    assert isinstance(record.prompt, tuple)
    assert record.prompt[0].role == "user"
    assert record.prompt[0].content in PROMPTS
    assert record.chosen == (Message("assistant", record.chosen[0].content),)  # type: ignore[union-attr]


def test_ties_follow_the_export_policy(place: Path):
    rule = ("--set", "labeler.function=rules.py:tie")
    assert rlhf(*rule) == 0
    assert rows() == []
    assert rlhf(*rule, "--run-dir", "half", "--set", "export.ties=half") == 0
    records = read_comparisons([Source(path="half/preferences.jsonl")]).records
    assert {record.p_chosen for record in records} == {0.5}
    assert len(rows("half")) == result("half")["ties"]


def test_changed_weights_are_refused(place: Path, models: Path, monkeypatch: pytest.MonkeyPatch):
    save_tiny(place / "model", 0)
    own = ("--set", "candidates=[{path: model}]")

    def stop(*_: object) -> object:
        raise Preempted("interrupted while sampling")

    answer = answering.Answerer.answer
    answered = []

    def once(self: answering.Answerer, slots: object) -> object:
        answered.append(slots)
        return answer(self, slots) if len(answered) == 1 else stop()  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(answering.Answerer, "answer", once)
        assert rlhf(*own) == 75
    save_tiny(place / "model", 1)
    assert rlhf(*own) == 73


def test_equal_answers_everywhere_are_no_collection(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--set", "candidates.0.temperature=1e-6") == 65
    assert "raise candidates.0.temperature" in capsys.readouterr().err


def test_prompts_without_room_are_left_out(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--set", "generation.max_new_tokens=96") == 65
    assert "no prompt is left" in capsys.readouterr().err


def test_no_terminal_is_noticed_before_any_work(place: Path, capsys: pytest.CaptureFixture[str]):
    Path("collect.yaml").write_text(Path("collect.yaml").read_text().replace("labeler: {", "# {"))
    assert rlhf() == 2
    assert "rlhf_cli.preference.rules:longer" in capsys.readouterr().err
    assert not Path("run/collect.db").exists()


def test_a_dry_run_tells_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--dry-run") == 0
    out = capsys.readouterr().out
    assert "answers: 24 of at most 8 tokens" in out
    assert "pairs: 12, judged by rule" in out
    assert not Path("run").exists()
