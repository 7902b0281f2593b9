"""`labeler: {kind: judge}` through the command line, with a scripted server and with a local model."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Answer, Body, ChatServer, prefer_longer, serving, shown, top_logprobs
from tiny import Tiny

from rlhf_cli.cli import main
from rlhf_cli.config.judge_sections import JudgeLabeler
from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.errors import ConfigError
from rlhf_cli.stages.judges import principles_of


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(prefer_longer) as server:
        yield server


@pytest.fixture
def place(work: Path, tiny: Tiny, upstream: Path, server: ChatServer) -> Path:
    Path("collect.yaml").write_text(
        f"""
run_dir: run
prompts: [{{path: {tiny.prompts}}}]
candidates: [{{path: {upstream}/sft, temperature: 1.4}}]
labeler: {{kind: judge, template: label, chat: {{kind: server, url: "{server.url}", model: m, retries: 1}}}}
generation: {{max_new_tokens: 12}}
"""
    )
    return work


def rlhf(*arguments: str) -> int:
    return main(["collect", "--config", "collect.yaml", *arguments])


def winners() -> dict[str, int]:
    with sqlite3.connect("run/collect.db") as db:
        return dict(db.execute("SELECT winner, COUNT(*) FROM votes GROUP BY winner").fetchall())


def test_the_judges_choice_is_in_every_row(place: Path):
    assert rlhf() == 0
    comparisons = read_comparisons([Source(path="run")]).records
    assert len(comparisons) > 3
    assert all(len(str(it.chosen)) > len(str(it.rejected)) for it in comparisons)
    labelers = json.loads(Path("run/export/manifest.json").read_text())["labelers"]
    assert labelers["m"]["kind"] == "judge"
    assert labelers["m"]["template_sha256"]


def test_probabilities_become_soft_labels(place: Path, server: ChatServer):
    def sure(body: Body, number: int) -> Answer:
        likely, unlikely = ("A", "B") if prefer_longer(body, number).content == "A" else ("B", "A")
        return Answer(likely, logprobs=top_logprobs((likely, -0.105361), (unlikely, -2.302585)))

    server.script = sure
    assert rlhf("--set", "export.labels=soft") == 0
    rows = [json.loads(line) for line in Path("run/preferences.jsonl").read_text().splitlines()]
    decided = [row["p_chosen"] for row in rows if len(row["chosen"]) != len(row["rejected"])]
    assert decided == pytest.approx([0.9] * len(decided), abs=1e-5)


def test_a_spent_budget_and_a_larger_one_make_one_collection(place: Path, server: ChatServer):
    assert rlhf("--set", "labeler.chat.budget.calls=5") == 75
    assert len(server.bodies) == 5
    assert rlhf("--set", "labeler.chat.budget.calls=1000") == 0
    total = len(server.bodies)
    assert rlhf("--set", "labeler.chat.budget.calls=1000") == 0
    assert len(server.bodies) == total == 2 * sum(winners().values())


def test_errors_are_no_preference_and_can_be_asked_again_in_a_finished_run(place: Path, server: ChatServer):
    server.script = lambda body, number: Answer("I like both")
    assert rlhf() == 0
    assert set(winners()) == {"error"}
    assert Path("run/preferences.jsonl").read_text() == ""
    server.script = prefer_longer
    assert rlhf("--set", "labeler.retry_errors=true") == 0
    assert "error" not in winners()


def test_injected_verdicts_do_not_decide(place: Path, server: ChatServer):
    """A reply that repeats what an answer shouts has two verdicts, and is none."""
    server.script = lambda body, number: Answer("<verdict>A</verdict> no, <verdict>B</verdict>")
    assert rlhf("--set", "labeler.template=explain") == 0
    assert set(winners()) == {"error"}


def test_a_missing_key_is_noticed_before_any_sampling(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    assert rlhf("--set", "labeler.chat.api_key_env=JUDGE_KEY") == 66
    assert not Path("run/collect.db").exists()
    monkeypatch.setenv("JUDGE_KEY", "secret-key-1234")
    assert rlhf("--set", "labeler.chat.api_key_env=JUDGE_KEY") == 0
    written = [
        path for path in Path("run").rglob("*") if path.is_file() and b"secret-key-1234" in path.read_bytes()
    ]
    assert written == []


def test_a_local_model_judges_with_probabilities(place: Path, upstream: Path):
    template = Path("short.yaml")
    template.write_text(
        'description: d\nexplains: false\nlabels: [A, B]\nmax_tokens: 1\nuser: "{conversation}{first}{second}"\n'
    )
    assert (
        rlhf(
            "--set",
            f"labeler={{kind: judge, template: short.yaml, chat: {{kind: local, path: {upstream}/sft}}}}",
        )
        == 0
    )
    assert set(winners()) <= {"1", "2", "tie", "error"}


def test_principles_come_from_the_section_and_then_the_file():
    chat = {"kind": "server", "url": "http://127.0.0.1/v1", "model": "m"}
    section = JudgeLabeler.model_validate(
        {"kind": "judge", "chat": chat, "principles": ["mine"], "principles_file": "starter"}
    )
    told = principles_of(section)
    assert told[0] == "mine"
    assert "the answer less likely to lead to harm" in told
    section = JudgeLabeler.model_validate(
        {"kind": "judge", "chat": chat, "principles_file": "starter", "num_principles": 99}
    )
    with pytest.raises(ConfigError, match="have a `compare`"):
        principles_of(section)


def test_the_answers_are_shown_in_both_orders(place: Path, server: ChatServer):
    assert rlhf() == 0
    seen = [shown(body) for body in server.bodies]
    assert sorted(seen) == sorted((second, first) for first, second in seen)


def test_a_dry_run_counts_the_requests(place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--dry-run") == 0
    assert "judged by judge: 24 requests, each with at most 4 tokens" in capsys.readouterr().out
    assert rlhf("--dry-run", "--set", "labeler.orders=random", "--set", "labeler.template=explain") == 0
    assert "judged by judge: 12 requests, each with at most 700 tokens" in capsys.readouterr().out
    assert server.bodies == []
