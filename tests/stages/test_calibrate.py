"""`rlhf calibrate` through the command line, with a scripted judge behind HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Answer, Body, ChatServer, prefer_longer, serving, shown

from rlhf_cli.cli import main
from rlhf_cli.preference.store import Response, Store, Vote
from rlhf_cli.records import Prompt

NUM_PAIRS = 60


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(prefer_good) as server:
        yield server


def prefer_good(body: Body, _: int) -> Answer:
    """Judge like the people of these tests."""
    first, _second = shown(body)
    return Answer("A" if "good" in first else "B", usage={"prompt_tokens": 50, "completion_tokens": 1})


@pytest.fixture
def place(work: Path, server: ChatServer) -> Path:
    rows = [
        {
            "prompt": f"Question {i}",
            "chosen": f"good {i}" + " indeed" * (i % 2),
            "rejected": f"poor {i}" + " indeed" * (1 - i % 2),
        }
        for i in range(NUM_PAIRS)
    ]
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("judge.yaml").write_text(
        f"""
run_dir: run
prompts: [{{path: labels.jsonl}}]
candidates: [{{path: some/model}}]
labeler: {{kind: judge, template: label, chat: {{kind: server, url: "{server.url}", model: m}}}}
"""
    )
    return work


def calibrate(*arguments: str, labels: str = "labels.jsonl") -> int:
    return main(["calibrate", "--config", "judge.yaml", "--labels", labels, *arguments])


def test_a_judge_that_sees_what_people_see_is_a_go(place: Path, capsys: pytest.CaptureFixture[str]):
    assert calibrate("--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["go"], told["judge"]) == ("rlhf.calibration/1", True, "m")
    figures = told["figures"]
    assert (figures["agreement"], figures["longest"], figures["kappa"]) == (1.0, 0.5, 1.0)
    assert (figures["flip_rate"], figures["error_rate"], figures["people"]) == (0.0, 0.0, None)
    assert told["spent"] == {"calls": 120, "tokens": 6120, "cost": 0.0}


def test_a_judge_that_counts_characters_is_no_go(
    place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
):
    server.script = prefer_longer
    assert calibrate() == 0
    out = capsys.readouterr().out
    assert "NO GO" in out
    assert "FAIL  agreement above that of always taking the longer answer: 0.0%, more than 0.0%" in out
    assert "FAIL  longer answers preferred more often than by people: 50.0%, at most 10.0%" in out


def test_a_second_look_pays_nothing_and_a_limit_is_a_part(place: Path, server: ChatServer):
    assert calibrate("--limit", "20") == 0
    assert len(server.bodies) == 40
    assert calibrate("--limit", "20", "--set", "labeler.calibration.min_pairs=5") == 0
    assert len(server.bodies) == 40
    assert calibrate() == 0
    assert len(server.bodies) == 120


def test_a_spent_budget_stops_and_a_larger_one_goes_on(place: Path, server: ChatServer):
    assert calibrate("--set", "labeler.chat.budget.calls=30") == 75
    assert len(server.bodies) == 30
    assert calibrate("--set", "labeler.chat.budget.calls=200") == 0
    assert len(server.bodies) == 120


def test_votes_of_several_people_are_compared_with_each_other(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    folder = place / "by-hand"
    folder.mkdir()
    with Store(folder / "collect.db") as store:
        store.add_prompts([Prompt(f"Question {i}", f"p:{i}", {}) for i in range(4)])
        texts = [
            (i, sample, f"{word} {i}") for i in range(1, 5) for sample, word in enumerate(("good", "poor"))
        ]
        store.add_responses(
            Response(i, 0, sample, "model", "digest", 1.0, 1.0, sample, "stop", text)
            for i, sample, text in texts
        )
        store.add_pairs(store.unpaired((0, 0), (0, 1)))
        for name, kind in (("ana", "human"), ("bo", "human"), ("rule", "rule")):
            store.add_labeler(name, kind, {})  # type: ignore[arg-type]
        for i in range(1, 5):
            store.vote(Vote(i, "1", "ana"), key=f"ana{i}")
            store.vote(Vote(i, "1" if i < 4 else "2", "bo"), key=f"bo{i}")
            store.vote(Vote(i, "2", "rule"), key=f"rule{i}")
    assert calibrate("--json", labels="by-hand") == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    # The fourth pair is an even split, a tie; the rule is nobody.
    assert (figures["num_pairs"], figures["num_decided"], figures["agreement"]) == (4, 3, 1.0)
    assert figures["people"] == 0.75


def test_only_a_judge_can_be_calibrated_and_labels_must_be_there(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    assert calibrate("--set", "labeler={kind: web}") == 78
    assert "only a judge can be calibrated" in capsys.readouterr().err
    assert calibrate(labels="nowhere.jsonl") == 66
