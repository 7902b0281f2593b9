"""Scores over HTTP: each answer asked once, every way a server can fail, and our own server on the other end."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tiny import Tiny, column, run_stage

from rlhf_cli.config.load import load_config
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, Preempted, UnavailableError
from rlhf_cli.records import Message
from rlhf_cli.reward.served import SCHEMA, ScoreServer, ServedScorer
from rlhf_cli.tools.serve_reward import make_app, open_desk

Answer = Callable[[list[dict[str, Any]], int], tuple[int, Any]]
"""Items and the number of the request, from 1 -> status and body."""

DIALOG = (Message("user", "hi"),)
EPISODES = [
    Episode("p", (1, 2), (3, 4), "one", finished=True),
    Episode(DIALOG, (1,), (5,), "three", finished=False),
    Episode("p", (1, 2), (6,), "fifteen", finished=True),
]


def lengths(items: list[dict[str, Any]], _: int) -> tuple[int, Any]:
    return 200, {"scores": [len(item["completion"]) for item in items]}


@contextmanager
def server_that(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run a server; yields its address and the bodies it was sent."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append(body | {"authorization": self.headers.get("authorization")})
            status, said = answer(body["items"], len(bodies))
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def scorer_for(url: str, work: Path, *, should_stop: Callable[[], bool] = lambda: False, **options: Any):
    server = ScoreServer(url, first_pause_seconds=0.01, timeout_seconds=5, **options)
    return ServedScorer(server, work / "cache" / "scores.db", should_stop=should_stop)


def test_answers_are_scored_in_batches_and_never_twice(tmp_path: Path):
    with server_that(lengths) as (url, bodies):
        assert scorer_for(url, tmp_path, batch_size=2, api_key="secret").score(EPISODES) == [3, 5, 7]
        again = Episode("p", (1, 2), (7,), "new", finished=True)
        assert scorer_for(url, tmp_path).score([*EPISODES, again]) == [3, 5, 7, 3]
    assert [len(body["items"]) for body in bodies] == [2, 1, 1]
    assert bodies[0]["schema"] == SCHEMA
    assert bodies[0]["authorization"] == "Bearer secret"
    assert bodies[0]["items"][1] == {
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": "three",
        "finished": False,
        "prompt_ids": [1],
        "completion_ids": [5],
    }


def test_passing_trouble_is_waited_out(tmp_path: Path):
    def answer(items: list[dict[str, Any]], number: int) -> tuple[int, Any]:
        return lengths(items, number) if number == 3 else (503 if number == 1 else 429, "busy")

    with server_that(answer) as (url, bodies):
        assert scorer_for(url, tmp_path).score(EPISODES) == [3, 5, 7]
    assert len(bodies) == 3


@pytest.mark.parametrize(("status", "num_requests"), [(500, 3), (401, 1), (404, 1)])
def test_a_server_that_stays_in_trouble_ends_the_run(tmp_path: Path, status: int, num_requests: int):
    with (
        server_that(lambda *_: (status, "no")) as (url, bodies),
        pytest.raises(UnavailableError, match=f"HTTP {status}") as raised,
    ):
        scorer_for(url, tmp_path, retries=2, api_key="secret").score(EPISODES)
    assert len(bodies) == num_requests
    assert "secret" not in str(raised.value)


def test_a_server_that_is_not_there_ends_the_run(tmp_path: Path):
    with pytest.raises(UnavailableError, match="no reply"):
        scorer_for("http://127.0.0.1:9/score", tmp_path, retries=1).score(EPISODES)


@pytest.mark.parametrize(
    "said",
    [
        {"scores": [1, 2]},
        {"scores": [1, 2, "3"]},
        {"scores": [1, 2, True]},
        b'{"scores": [1, 2, NaN]}',
        [],
        b"<html>",
    ],
)
def test_what_is_not_scores_is_refused(tmp_path: Path, said: Any):
    with server_that(lambda *_: (200, said)) as (url, _), pytest.raises(DataError, match="3 finite scores"):
        scorer_for(url, tmp_path).score(EPISODES)


def test_what_was_scored_before_a_failure_is_kept(tmp_path: Path):
    def answer(items: list[dict[str, Any]], number: int) -> tuple[int, Any]:
        return (400, "no more") if number == 2 else lengths(items, number)

    with server_that(answer) as (url, bodies):
        with pytest.raises(UnavailableError):
            scorer_for(url, tmp_path, batch_size=2).score(EPISODES)
        assert scorer_for(url, tmp_path, batch_size=2).score(EPISODES) == [3, 5, 7]
    assert [len(body["items"]) for body in bodies] == [2, 1, 1]


def test_a_signal_ends_the_wait(tmp_path: Path):
    started = time.monotonic()
    with server_that(lambda *_: (503, "busy")) as (url, _):
        server = ScoreServer(url, first_pause_seconds=30)
        scorer = ServedScorer(server, tmp_path / "scores.db", should_stop=lambda: True)
        with pytest.raises(Preempted):
            scorer.score(EPISODES)
    assert time.monotonic() - started < 5


def test_ppo_gets_from_our_own_server_what_it_computes_itself(tiny: Tiny, work: Path):
    reward_model = run_stage("train-rm", tiny.settings("train-rm"), work).dir.root
    settings = tiny.settings("ppo", reward=[{"kind": "model", "path": str(reward_model)}])
    here = run_stage("ppo", settings, work)
    (work / "served.yaml").write_text(json.dumps(settings))
    desk = open_desk(load_config("ppo", work / "served.yaml").config)
    client = TestClient(make_app(desk))

    def answer(items: list[dict[str, Any]], _: int) -> tuple[int, Any]:
        response = client.post("/score", json={"schema": SCHEMA, "items": items})
        return response.status_code, response.json()

    with server_that(answer) as (url, _):
        there = run_stage(
            "ppo", settings | {"run_dir": "there", "reward": [{"kind": "http", "url": url}]}, work
        )
    assert column(there.dir, "reward") == pytest.approx(column(here.dir, "reward"), abs=1e-5)


def test_our_server_scores_texts_and_refuses_nonsense(tiny: Tiny, work: Path):
    (work / "ppo.yaml").write_text(json.dumps(tiny.settings("ppo")))  # a pattern: the letter e
    client = TestClient(make_app(open_desk(load_config("ppo", work / "ppo.yaml").config)))

    def ask(body: Any) -> httpx.Response:
        return client.post("/score", json=body)

    items = [
        {"prompt": "Color: ", "completion": "red"},
        {"prompt": [{"role": "user", "content": "?"}], "completion": "a"},
    ]
    assert ask({"items": items}).json() == {"scores": [1.0, 0.0]}
    for nonsense in ([], {"items": [1]}, {"schema": "other/1", "items": []}, {"items": [{"prompt": "x"}]}):
        assert ask(nonsense).status_code == 400
    assert client.post("/score", content=b"{").status_code == 400
    assert client.get("/health").json() == {"status": "ok"}
