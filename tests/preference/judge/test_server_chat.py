"""The HTTP client against a server that misbehaves: what is sent again, what is given up, what is never shown."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from chat_server import Answer, ChatServer, Script, serving, top_logprobs

from rlhf_cli.errors import Preempted, UnavailableError
from rlhf_cli.preference.judge.budget import Budget, Limits, Prices
from rlhf_cli.preference.judge.calls import Spent
from rlhf_cli.preference.judge.chat import ChatFailure, ChatReply, ChatRequest
from rlhf_cli.preference.judge.server import Server, ServerChat
from rlhf_cli.preference.judge.throttle import Throttle, retry_after_seconds
from rlhf_cli.records import Message

KEY = "sk-canary-7f3e9d"


def requests(number: int, **extra: object) -> list[ChatRequest]:
    return [ChatRequest((Message("user", f"q{i}"),), 4, **extra) for i in range(number)]  # type: ignore[arg-type]


def unlimited() -> Budget:
    return Budget(Limits(), Prices(), Spent())


def chat_of(server: ChatServer, budget: Budget | None = None, **settings: object) -> ServerChat:
    patient = Server(server.url, "m", **{"first_pause_seconds": 0.01, **settings})  # type: ignore[arg-type]
    return ServerChat(patient, budget or unlimited(), should_stop=lambda: False)


def ask(script: Script, asked: Iterable[ChatRequest], **settings: object) -> tuple[list[object], ChatServer]:
    """Return the outcomes in the order of the requests, and the server."""
    asked = list(asked)
    with serving(script) as server:
        got = dict(chat_of(server, **settings).replies(asked))
    return [got[request] for request in asked], server


def after(number: int, trouble: Answer) -> Script:
    """Misbehave for the first requests, then answer."""
    return lambda body, count: trouble if count < number else Answer("fine")


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=500),
        Answer(status=503, headers={"retry-after": "0.05"}),
        Answer(status=429, headers={"retry-after": "0"}),
        Answer(status=429),
        Answer(status=408),
        Answer(raw=b"{not json"),
        Answer(raw=b""),
        Answer(raw=b"[]"),
        Answer(raw=b'{"choices": []}'),
        Answer(raw=b'{"choices": [{"message": null}]}'),
        Answer(raw=b'{"choices": [{"message": {"content": 3}}]}'),
        Answer(raw=b'{"error": {"message": "busy"}}'),
        Answer(raw=b"[" * 100_000),
        Answer(raw=b"\xff\xfe\x00"),
        Answer(seconds=5),
    ],
    ids=lambda it: f"{it.status} {(it.raw or b'')[:20]!r} {it.seconds}",
)
def test_passing_troubles_are_asked_again(trouble: Answer):
    (reply,), server = ask(after(2, trouble), requests(1), timeout_seconds=0.2)
    assert isinstance(reply, ChatReply)
    assert (reply.text, reply.attempts, len(server.bodies)) == ("fine", 3, 3)


def test_a_connection_that_breaks_is_tried_again():
    with serving(lambda *_: Answer()) as server:
        pass
    with pytest.raises(UnavailableError, match="3 failures in a row"):
        list(chat_of(server, patience=3).replies(requests(1)))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_the_server_cannot_take_fails_alone(status: int):
    def script(body, _):
        bad = body["messages"][0]["content"] == "q1"
        return Answer(status=status, raw=b"the prompt is too long") if bad else Answer("fine")

    outcomes, server = ask(script, requests(3), concurrency=1)
    assert outcomes[1] == ChatFailure(f"HTTP {status}: the prompt is too long")
    assert [it.text for it in outcomes if isinstance(it, ChatReply)] == ["fine", "fine"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [401, 402, 403, 404, 307])
def test_a_server_that_refuses_everybody_ends_the_sitting(status: int):
    with serving(lambda *_: Answer(status=status, raw=f"bad key {KEY}".encode())) as server:
        with pytest.raises(UnavailableError, match=f"HTTP {status}") as caught:
            list(chat_of(server, api_key=KEY, concurrency=1).replies(requests(5)))
        assert len(server.bodies) == 1
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)


def test_nothing_but_failures_ends_the_sitting():
    with serving(lambda *_: Answer(status=500)) as server:
        with pytest.raises(UnavailableError, match="5 failures in a row"):
            list(chat_of(server, patience=5, concurrency=1).replies(requests(9)))
        assert len(server.bodies) == 5


def test_patience_with_one_request_has_an_end():
    def script(body, _):
        return Answer(status=500, raw=b"") if body["messages"][0]["content"] == "q1" else Answer("fine")

    outcomes, server = ask(script, requests(6), retries=2, concurrency=1)
    assert outcomes[1] == ChatFailure("HTTP 500")
    assert sum(isinstance(it, ChatReply) for it in outcomes) == 5
    assert len(server.bodies) == 5 + 3


def test_a_pause_the_server_asks_for_is_kept_by_all():
    first = Answer(status=429, headers={"retry-after": "0.4"})
    began = time.monotonic()
    outcomes, _ = ask(after(1, first), requests(4), concurrency=2)
    assert time.monotonic() - began >= 0.4
    assert all(isinstance(it, ChatReply) for it in outcomes)


def test_too_long_a_pause_ends_the_sitting():
    with (
        serving(lambda *_: Answer(status=429, headers={"retry-after": "86400"})) as server,
        pytest.raises(UnavailableError, match="asks to wait 86400 s"),
    ):
        list(chat_of(server).replies(requests(1)))


def test_concurrency_is_kept_and_used():
    outcomes, server = ask(lambda *_: Answer("x", seconds=0.05), requests(20), concurrency=4)
    assert len(outcomes) == 20
    assert server.most_open == 4


@pytest.mark.parametrize(
    ("name", "other"), [("max_tokens", "max_completion_tokens"), ("seed", None), ("logprobs", None)]
)
def test_a_parameter_the_server_lacks_is_left_out(name: str, other: str | None):
    def script(body, _):
        if name in body:
            return Answer(status=400, raw=f"Unsupported parameter: '{name}'".encode())
        return Answer("A")

    outcomes, server = ask(script, requests(3, labels=("A", "B")), concurrency=1)
    assert all(isinstance(it, ChatReply) and it.text == "A" for it in outcomes)
    assert len(server.bodies) == 4
    assert other is None or server.bodies[-1][other] == 4


def test_fewer_alternatives_are_asked_for_where_twenty_are_too_many():
    def script(body, _):
        many = body["top_logprobs"] > 5
        return Answer(status=400, raw=b"top_logprobs must be at most 5") if many else Answer("A")

    (reply,), server = ask(script, requests(1, labels=("A", "B")))
    assert isinstance(reply, ChatReply)
    assert [body["top_logprobs"] for body in server.bodies] == [20, 5]


def test_a_request_says_all_there_is_to_sampling():
    _, server = ask(lambda *_: Answer(), requests(1, temperature=0.0, seed=2**40 + 7), api_key=KEY)
    (body,) = server.bodies
    assert body == {
        "path": "/v1/chat/completions",
        "model": "m",
        "messages": [{"role": "user", "content": "q0"}],
        "max_tokens": 4,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 7,
        "stream": False,
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_label_is_told_with_its_probability():
    logprobs = top_logprobs(("A", -0.1), (" A", -3.0), ("B", -4.0))
    (reply,), _ = ask(lambda *_: Answer("A", logprobs=logprobs), requests(1, labels=("A", "B")))
    assert isinstance(reply, ChatReply)
    # exp(-0.1) + exp(-3) = 0.904837 + 0.049787; exp(-4) = 0.018316
    assert reply.label_probabilities == pytest.approx({"A": 0.954625, "B": 0.018316}, abs=1e-6)


def test_usage_is_counted_and_paid():
    budget = Budget(Limits(), Prices(prompt=2.0, completion=10.0), Spent())
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    with serving(lambda *_: Answer("x", usage=usage)) as server:
        ((_, reply),) = chat_of(server, budget).replies(requests(1))
    assert isinstance(reply, ChatReply)
    # 1000 * 2 / 1e6 + 100 * 10 / 1e6
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost) == (1000, 100, pytest.approx(0.003))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_budget_of_calls_is_met_exactly(concurrency: int):
    budget = Budget(Limits(calls=10), Prices(), Spent(calls=3))
    arrived = []
    with serving(lambda body, count: Answer(status=500) if count == 2 else Answer()) as server:
        with pytest.raises(Preempted, match="budget is spent: calls 10"):
            arrived.extend(chat_of(server, budget, concurrency=concurrency).replies(requests(20)))
        assert len(server.bodies) == 7
    assert len(arrived) == 6


def test_a_budget_of_tokens_holds_back_what_may_not_fit():
    # A request of about 140 bytes is held at 47 + 4 tokens, and settled at the 20 it used.
    budget = Budget(Limits(tokens=100), Prices(), Spent())
    usage = {"prompt_tokens": 19, "completion_tokens": 1}
    with serving(lambda *_: Answer("x", usage=usage)) as server:
        with pytest.raises(Preempted, match="tokens 100"):
            list(chat_of(server, budget, concurrency=1).replies(requests(20)))
        assert 2 <= len(server.bodies) <= 5


def test_a_stop_waits_for_what_is_under_way_and_starts_nothing():
    stopped = False
    arrived = []
    with serving(lambda *_: Answer("x", seconds=0.2)) as server:
        settings = Server(server.url, "m", concurrency=2)
        chat = ServerChat(settings, unlimited(), should_stop=lambda: stopped)
        for outcome in chat.replies(requests(10)):
            stopped = True
            arrived.append(outcome)
        assert len(server.bodies) == len(arrived) == 2


def test_the_throttle_halves_once_for_one_overload_and_recovers():
    now = 0.0
    throttle = Throttle(8, clock=lambda: now)
    now = 1.0
    for _ in range(5):
        throttle.overloaded(0.5, 3.0)  # all of them left before the first refusal
    assert (throttle.limit, throttle.opens_at) == (4, 4.0)
    now = 2.0
    throttle.overloaded(1.5, None)
    assert throttle.limit == 2
    for _ in range(5):
        throttle.went_well()  # 2 -> 2.5 -> 2.9 -> 3.24 -> 3.55 -> 3.83
    assert throttle.limit == 3
    for _ in range(100):
        throttle.went_well()
    assert throttle.limit == 8


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("12", 12), ("0.5", 0.5), ("-3", 0), ("soon", None), ("inf", None), ("nan", None),
     ("Tue, 24 Nov 2026 06:00:30 GMT", 30), ("Tue, 24 Nov 2026 05:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None):
    now = datetime(2026, 11, 24, 6, 0, 0, tzinfo=UTC)
    assert retry_after_seconds(header, now) == seconds
