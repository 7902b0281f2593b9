"""A judge's votes in a store: once each, paid once, through errors, budgets and kill -9."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import Answer, ChatServer, prefer_longer, serving, shown, top_logprobs
from small_store import fill

from rlhf_cli.errors import Preempted, UnavailableError
from rlhf_cli.preference.judge.budget import Budget, Limits, Prices
from rlhf_cli.preference.judge.calls import CachedChat, Calls, Spent, cache_key
from rlhf_cli.preference.judge.chat import ChatFailure, ChatReply, ChatRequest, ScriptedChat
from rlhf_cli.preference.judge.judging import Judge, JudgeSettings
from rlhf_cli.preference.judge.server import Server, ServerChat
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.judge.votes import judge_votes
from rlhf_cli.preference.store import Store
from rlhf_cli.records import Message

# One sitting of a judge, as a program that can be killed: file, url, budget of calls.
SITTING = """
import sys
from pathlib import Path
from rlhf_cli.preference.judge.budget import Budget, Limits, Prices
from rlhf_cli.preference.judge.calls import CachedChat, Calls
from rlhf_cli.preference.judge.judging import Judge, JudgeSettings
from rlhf_cli.preference.judge.server import Server, ServerChat
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.judge.votes import judge_votes
from rlhf_cli.preference.store import Store

path = Path(sys.argv[1])
with Store(path) as store, Calls(path) as calls:
    server = Server(sys.argv[2], "m", concurrency=4, first_pause_seconds=0.01)
    chat = ServerChat(server, Budget(Limits(), Prices(), calls.spent()), should_stop=lambda: False)
    judge = Judge(CachedChat(chat, calls), load_template("label"), JudgeSettings())
    for _ in judge_votes(store, judge, "judge", errors=False):
        pass
"""


def make_store(path: Path, num_pairs: int) -> None:
    with Store(path) as store:
        fill(store, [(f"answer {i}", f"a longer answer {i}") for i in range(num_pairs)])
        store.add_labeler("judge", "judge", {"model": "m"})


def sitting(
    path: Path, server: ChatServer, *, errors: bool = False, calls_at_most: int | None = None
) -> list[int]:
    with Store(path) as store, Calls(path) as calls:
        settings = Server(server.url, "m", concurrency=4, first_pause_seconds=0.01, retries=3)
        budget = Budget(Limits(calls=calls_at_most), Prices(), calls.spent())
        chat = ServerChat(settings, budget, should_stop=lambda: False)
        judge = Judge(CachedChat(chat, calls), load_template("label"), JudgeSettings())
        return list(judge_votes(store, judge, "judge", errors=errors))


def winners(path: Path) -> list[str]:
    with Store(path) as store:
        return [vote.winner for vote in store.votes()]


def num_calls(path: Path) -> int:
    with Calls(path) as calls:
        return calls.spent().calls


def test_votes_are_stored_with_all_there_is_to_know(tmp_path: Path):
    path = tmp_path / "collect.db"
    make_store(path, 1)

    def sure(body, _):
        first, _second = shown(body)
        likely, unlikely = ("A", "B") if "longer" in first else ("B", "A")
        return Answer(likely, logprobs=top_logprobs((likely, -0.105361), (unlikely, -2.302585)))

    with serving(sure) as server:
        assert sitting(path, server) == [1]
    with Store(path) as store:
        (vote,) = store.votes()
    # exp(-0.105361) = 0.9, exp(-2.302585) = 0.1: response 1 has 0.1 in both orders
    assert (vote.winner, vote.labeler, vote.first) == ("2", "judge", 0)
    assert vote.p_first_response == pytest.approx(0.1, abs=1e-5)
    raw = json.loads(vote.raw)
    assert sorted((it["first"], it["side"], round(it["p_first"], 3)) for it in raw["orders"]) == [
        (1, "second", 0.1),
        (2, "first", 0.9),
    ]


def test_a_second_sitting_asks_nothing_again(tmp_path: Path):
    path = tmp_path / "collect.db"
    make_store(path, 5)
    with serving(prefer_longer) as server:
        assert sitting(path, server) == [1, 2, 3, 4, 5]
        assert sitting(path, server) == []
        assert len(server.bodies) == 10
    assert winners(path) == ["2"] * 5


def test_a_spent_budget_leaves_pairs_open_for_a_larger_one(tmp_path: Path):
    path = tmp_path / "collect.db"
    make_store(path, 10)
    with serving(prefer_longer) as server:
        with pytest.raises(Preempted, match="calls 7"):
            sitting(path, server, calls_at_most=7)
        assert (len(server.bodies), num_calls(path)) == (7, 7)
        assert len(winners(path)) <= 3
        sitting(path, server, calls_at_most=20)
        assert len(server.bodies) == 20
    assert winners(path) == ["2"] * 10


def test_errors_are_kept_apart_and_asked_again_on_request(tmp_path: Path):
    path = tmp_path / "collect.db"
    make_store(path, 3)
    confused = True

    def script(body, number):
        is_unreadable = confused and shown(body)[0] == "answer 1"
        return Answer("hm") if is_unreadable else prefer_longer(body, number)

    with serving(script) as server:
        assert sitting(path, server) == [1, 2, 3]
        assert sorted(winners(path)) == ["2", "2", "error"]
        assert sitting(path, server) == []
        confused = False
        asked = len(server.bodies)
        assert sitting(path, server, errors=True) == [3]
        # The order that could be read is stored; the other one is asked with a seed of its own.
        assert len(server.bodies) == asked + 1
    assert winners(path) == ["2"] * 3


def test_a_server_that_dies_leaves_the_rest_for_later(tmp_path: Path):
    path = tmp_path / "collect.db"
    make_store(path, 10)
    dead = True

    def script(body, number):
        return Answer(status=401) if dead and number >= 8 else prefer_longer(body, number)

    with serving(script) as server:
        with pytest.raises(UnavailableError, match="HTTP 401"):
            sitting(path, server)
        assert num_calls(path) == 8
        dead = False
        before = len(server.bodies)
        sitting(path, server)
        assert len(server.bodies) - before == 12
    assert winners(path) == ["2"] * 10


def test_a_cached_chat_asks_what_is_missing_and_stores_no_failure(tmp_path: Path):
    first, second = (ChatRequest((Message("user", text),), 4) for text in ("one", "two"))
    broken = True
    chat = ScriptedChat(lambda it: ChatFailure("no") if broken and it is second else ChatReply("A", cost=0.5))
    with Calls(tmp_path / "calls.db") as calls:
        cached = CachedChat(chat, calls)
        assert dict(cached.replies([first, second, first])) == {
            first: ChatReply("A", cost=0.5),
            second: ChatFailure("no"),
        }
        broken = False
        assert dict(cached.replies([first, second]))[second] == ChatReply("A", cost=0.5)
        assert chat.asked == [first, second, second]
        assert calls.spent() == Spent(2, 0, 1.0)


def test_every_part_of_a_request_is_in_its_key():
    base = ChatRequest((Message("user", "a"),), 4, labels=("A", "B"))
    others = [
        ChatRequest((Message("system", "a"),), 4, labels=("A", "B")),
        ChatRequest((Message("user", "b"),), 4, labels=("A", "B")),
        ChatRequest((Message("user", "a"),), 5, labels=("A", "B")),
        ChatRequest((Message("user", "a"),), 4, labels=("A", "C")),
        ChatRequest((Message("user", "a"),), 4, labels=("A", "B"), seed=1),
        ChatRequest((Message("user", "a"),), 4, labels=("A", "B"), temperature=0.5),
        ChatRequest((Message("user", "a"),), 4, labels=("A", "B"), label_prefix="x"),
    ]
    assert len({cache_key("m", it) for it in [base, *others]} | {cache_key("n", base)}) == 9


def kill_rounds(path: Path, num_pairs: int, num_kills: int) -> None:
    """Kill a judge after every few requests; every stored call and vote must survive, and none be repeated."""
    make_store(path, num_pairs)
    step = max(1, 2 * num_pairs // (num_kills + 1))
    with serving(lambda body, _: Answer("A" if "longer" in shown(body)[0] else "B", seconds=0.002)) as server:
        kills = 0
        for kill in range(num_kills + 1):
            stored, before = num_calls(path), len(server.bodies)
            command = [sys.executable, "-c", SITTING, str(path), server.url]
            with subprocess.Popen(command) as process:
                while kill < num_kills and process.poll() is None and len(server.bodies) - before < step:
                    time.sleep(0.001)
                if kill < num_kills and process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                process.wait()
            sound(path)
            assert num_calls(path) >= stored
            # At most those under way when it died are asked again.
            assert len(server.bodies) - before - (num_calls(path) - stored) <= 4
        assert kills >= num_kills // 2
        assert process.returncode == 0
        assert len(server.bodies) - before == 2 * num_pairs - stored
    assert winners(path) == ["2"] * num_pairs


def sound(path: Path) -> None:
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    twice = "SELECT presentation_id FROM judgements GROUP BY presentation_id HAVING COUNT(*) > 1"
    assert db.execute(twice).fetchall() == []
    db.close()


def test_a_judge_killed_half_way_makes_exactly_the_missing_calls(tmp_path: Path):
    kill_rounds(tmp_path / "collect.db", num_pairs=30, num_kills=1)


@pytest.mark.slow
def test_a_judge_killed_a_hundred_times_loses_and_repeats_nothing(tmp_path: Path):
    kill_rounds(tmp_path / "collect.db", num_pairs=700, num_kills=100)
