"""The server as a process: it starts, it is killed, it stops; what it acknowledged is there."""

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from scripted_desk import ScriptedDesk
from visitors import forms_in

from rlhf_cli.errors import UnavailableError, UsageError
from rlhf_cli.preference.web import serve as serving
from rlhf_cli.preference.web.serve import serve
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import VoteWork

DEADLINE_SECONDS = 300
NUM_KILLS = int(os.environ.get("RLHF_KILLS", "15"))  # 100 for a soak


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start_server(folder: Path, port: int, num_pairs: int) -> "subprocess.Popen[str]":
    script = Path(__file__).with_name("small_server.py")
    command = [sys.executable, str(script), str(folder), str(port), str(num_pairs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def running_server(folder: Path, num_pairs: int) -> Iterator[tuple["subprocess.Popen[str]", str, list[str]]]:
    """Run a server; yield it, its address, and the links it has said: the owner's, ana's, ben's."""
    port = free_port()
    process = start_server(folder, port, num_pairs)
    try:
        links = []
        while len(links) < 3 and (line := process.stdout.readline()):
            links += [word for word in line.split() if "/join/" in word]
        yield process, f"http://127.0.0.1:{port}", links
    finally:
        process.kill()
        process.communicate()


def judgements(folder: Path) -> list[tuple[str, str]]:
    """Return the key and winner of every judgement of a sound database."""
    with sqlite3.connect(folder / "collect.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT key, winner FROM judgements ORDER BY id").fetchall()


def vote(client: httpx.Client) -> str | None:
    """Vote on the next question with a key of its own; return the key once the vote is acknowledged."""
    form = forms_in(client.get("/").raise_for_status().text)["/answer"]
    form |= {"winner": "first", "key": uuid4().hex}
    client.post("/answer", data=form, headers={"accept": "application/json"}).raise_for_status()
    return form["key"]


def test_stopping_is_quick_and_leaves_every_vote(tmp_path: Path):
    with (
        running_server(tmp_path, 5) as (process, _, (link, *_)),
        httpx.Client(follow_redirects=True) as client,
    ):
        client.base_url = client.get(link).url
        key = vote(client)
        process.send_signal(signal.SIGTERM)  # with a connection open
        assert process.wait(20) == 0
    assert [stored for stored, _ in judgements(tmp_path)] == [key]


def test_links_are_said_once_and_sessions_outlive_the_server(tmp_path: Path):
    with running_server(tmp_path, 5) as (_, base, links), httpx.Client(follow_redirects=True) as client:
        assert client.get(links[0]).status_code == 200
        (session,) = client.cookies.values()
    with running_server_again(tmp_path) as (said, base):
        assert "ana has a link already" in said
        assert httpx.get(f"{base}{links[1][links[1].index('/join/') :]}").status_code == 200
        cookie = {f"rlhf_{base.rpartition(':')[2]}": session}
        assert httpx.get(base, cookies=cookie).status_code == 200


@contextmanager
def running_server_again(folder: Path) -> Iterator[tuple[str, str]]:
    port = free_port()
    process = start_server(folder, port, 0)
    try:
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline()
        yield said, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@dataclass
class Voter:
    """Somebody who goes on voting through every outage, as the page's script does: the same key until it is settled."""

    base: str
    cookies: dict[str, str]
    acknowledged: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        pending: dict[str, str] | None = None
        with httpx.Client(base_url=self.base, cookies=self.cookies, timeout=5) as client:
            while not self.stop.is_set():
                try:
                    if pending is None:
                        form = forms_in(client.get("/").text)["/answer"]
                        pending = form | {"winner": "first", "key": uuid4().hex}
                    reply = client.post("/answer", data=pending, headers={"accept": "application/json"})
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                assert reply.json() == {"saved": True}, reply.text
                self.acknowledged.append(pending["key"])
                pending = None


@pytest.mark.slow
def test_killed_again_and_again_while_three_people_vote(tmp_path: Path):
    port, chance = free_port(), random.Random(7)
    process = start_server(tmp_path, port, 5000)
    links = []
    while len(links) < 3:
        links += [word for word in process.stdout.readline().split() if "/join/" in word]
    voters = []
    for link in links:
        with httpx.Client(follow_redirects=True) as client:
            client.get(link) if link is links[0] else client.post(link)
            voters.append(Voter(f"http://127.0.0.1:{port}", dict(client.cookies)))
    threads = [threading.Thread(target=voter.run) for voter in voters]
    for thread in threads:
        thread.start()
    for _ in range(NUM_KILLS):
        before = sum(len(voter.acknowledged) for voter in voters)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sum(len(voter.acknowledged) for voter in voters) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        process = start_server(tmp_path, port, 5000)
    while "Ctrl-C" not in process.stdout.readline():
        pass
    for voter in voters:
        voter.stop.set()
    for thread in threads:
        thread.join()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    acknowledged = Counter(key for voter in voters for key in voter.acknowledged)
    stored = Counter(key for key, _ in judgements(tmp_path))
    assert len(acknowledged) > NUM_KILLS
    assert set(acknowledged.values()) == set(stored.values()) == {1}
    assert acknowledged.keys() <= stored.keys()
    print(f"{NUM_KILLS} kills, {len(acknowledged)} acknowledged, {len(stored)} stored")
    assert len(stored) - len(acknowledged) <= len(voters)  # the last ones, cut off by our own stop


def silent_work() -> VoteWork:
    desk = ScriptedDesk([("q", "a", "b")])
    return VoteWork(desk, tags=[], votes=desk.ballots)


def test_others_are_let_in_by_invitation_only(tmp_path: Path):
    with pytest.raises(UsageError, match="nobody is invited"):
        serve(
            silent_work(),
            WebSettings(owner="robin", host="0.0.0.0"),
            tmp_path / "access.db",
            should_stop=lambda: True,
            say=lambda text: None,
        )


def test_a_taken_port_is_said(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = WebSettings(owner="robin", port=taken.getsockname()[1])
        with pytest.raises(UnavailableError, match="cannot listen on"):
            serve(
                silent_work(),
                settings,
                tmp_path / "access.db",
                should_stop=lambda: True,
                say=lambda text: None,
            )


def test_it_ends_by_itself_once_everything_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(serving, "_COUNT_SECONDS", 0.0)
    desk = ScriptedDesk([("q", "a", "b")])
    settings = WebSettings(owner="robin", port=free_port())
    said: list[str] = []

    def visit() -> None:
        while not said:
            time.sleep(0.01)
        with httpx.Client(base_url=settings.local_url, follow_redirects=True) as client:
            client.get(next(word for word in said[0].split() if "/join/" in word))
            vote(client)

    visitor = threading.Thread(target=visit)
    visitor.start()
    serve(
        VoteWork(desk, tags=[], votes=desk.ballots),
        settings,
        tmp_path / "access.db",
        should_stop=lambda: False,
        say=said.append,
    )
    visitor.join()
    assert len(desk.votes) == 1
