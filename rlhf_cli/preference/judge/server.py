"""A chat model behind any OpenAI-compatible server: many requests at once, as many as the server bears."""

import asyncio
import ipaddress
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from rlhf_cli.errors import Preempted, UnavailableError
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.judge.budget import Budget
from rlhf_cli.preference.judge.chat import ChatFailure, ChatReply, ChatRequest
from rlhf_cli.preference.judge.throttle import Throttle, pause_seconds, retry_after_seconds
from rlhf_cli.preference.judge.wire import (
    MalformedReply,
    Said,
    adapt,
    read_body,
    refused_parameter,
    request_body,
)

_POLL_SECONDS = 0.1
_HOPELESS = {301, 302, 303, 307, 308, 401, 402, 403, 404, 405}
_PASSING = {408, 409, 425, 429}

Answered = tuple[ChatRequest, ChatReply | ChatFailure]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a model is served and how patient to be.

    A request is sent again `retries` times; `patience` failures in a row without any reply end the sitting, and
    so does a server that asks for a longer pause than `longest_wait_seconds`. `timeout_seconds` is for a whole
    reply. `api_key` is sent and never shown.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout_seconds: float = 120.0
    retries: int = 8
    patience: int = 20
    longest_wait_seconds: float = 300.0
    first_pause_seconds: float = 0.5


class ServerChat:
    """Sends chat requests to a server. `should_stop` is asked several times a second."""

    def __init__(self, server: Server, budget: Budget, *, should_stop: Callable[[], bool]) -> None:
        self.name = server.model
        self.identity = f"{server.url} {server.model}"
        self._server = server
        self._budget = budget
        self._should_stop = should_stop

    def replies(self, requests: Iterable[ChatRequest]) -> Iterator[Answered]:
        """Yield each request with its reply as it comes; asked to stop, wait for those under way and end.

        Raises UnavailableError when the server refuses everybody or has nothing but failures, Preempted when the
        budget is spent; not before the replies under way are in.
        """
        waiting = iter(dict.fromkeys(requests))
        with asyncio.Runner() as runner:
            sitting = _Sitting(self._server, self._budget, self._should_stop)
            try:
                while (arrived := runner.run(sitting.step(waiting))) is not None:
                    yield from arrived
            finally:
                runner.run(sitting.close())
        if sitting.hopeless:
            raise UnavailableError(
                sitting.hopeless,
                where=self._server.url,
                fix="mend it, then run the same command again: it goes on",
            )
        if sitting.out_of_budget:
            raise Preempted(
                f"the judge's budget is spent: {self._budget}",
                where="budget",
                fix="raise it, then run the same command again: it goes on",
            )


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A request that got no reply; `hopeless` is for every other one too, `final` for this one alone."""

    why: str
    overloaded: bool = False
    retry_after: float | None = None
    hopeless: bool = False
    final: bool = False
    answer: str = ""


class _GaveUp(Exception):
    """The sitting ends before this request is answered; it stays for the next one."""


class _Sitting:
    """One sequence of requests on one event loop."""

    def __init__(self, server: Server, budget: Budget, should_stop: Callable[[], bool]) -> None:
        self.hopeless = ""
        self.out_of_budget = False
        self._server = server
        self._budget = budget
        self._should_stop = should_stop
        self._throttle = Throttle(server.concurrency, clock=time.monotonic)
        self._chance = random.Random()  # decides pauses, nothing that is kept
        self._tasks: set[asyncio.Task[Answered]] = set()
        self._num_sending = 0
        self._failures_in_row = 0
        self._has_replied = False
        self._refused: frozenset[str] = frozenset()
        self._client = httpx.AsyncClient(
            timeout=None,  # asyncio.timeout covers the whole exchange, slow bodies too
            headers={"authorization": f"Bearer {server.api_key}"} if server.api_key else {},
            limits=httpx.Limits(max_connections=server.concurrency),
            trust_env=not _is_loopback(server.url),  # a proxy for the world outside has no way back here
        )

    async def step(self, waiting: Iterator[ChatRequest]) -> list[Answered] | None:
        """Start what may start, wait a moment, and return what has arrived; None when all is over."""
        while len(self._tasks) < self._throttle.limit and not self._is_ending():
            request = next(waiting, None)
            if request is None:
                break
            self._tasks.add(asyncio.create_task(self._exchange(request)))
        if not self._tasks:
            return None
        done, self._tasks = await asyncio.wait(
            self._tasks, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        return [task.result() for task in done if not isinstance(task.exception(), _GaveUp)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _is_ending(self) -> bool:
        return bool(self.hopeless) or self.out_of_budget or self._should_stop()

    async def _exchange(self, request: ChatRequest) -> Answered:
        """Send until there is a reply or an end of patience. Raises _GaveUp when the sitting ends first."""
        began = not_before = time.monotonic()
        attempts = failures = 0
        while True:
            await self._turn(not_before)
            body = adapt(request_body(self._server.model, request), self._refused)
            content = json.dumps(body).encode()
            if not self._budget.take(len(content), request.max_tokens):
                self.out_of_budget = True
                raise _GaveUp
            attempts += 1
            said = await self._send(content, request)
            if isinstance(said, Said):
                return request, self._reply(request, said, len(content), time.monotonic() - began, attempts)
            self._budget.settle(len(content), request.max_tokens, 0, 0)
            parameter = refused_parameter(said.answer, body, self._refused) if said.final else None
            if parameter:
                self._refused |= {parameter}
                continue
            failures += 1
            self._note(said)
            if said.hopeless:
                raise _GaveUp
            if said.final or failures > self._server.retries:
                return request, ChatFailure(said.why)
            pause = pause_seconds(failures, self._chance, first_seconds=self._server.first_pause_seconds)
            not_before = time.monotonic() + pause

    async def _turn(self, not_before: float) -> None:
        """Wait for the own pause, the server's, and a place among those that are sending."""
        while True:
            if self._is_ending():
                raise _GaveUp
            left = max(not_before, self._throttle.opens_at) - time.monotonic()
            if left <= 0 and self._num_sending < self._throttle.limit:
                return
            await asyncio.sleep(min(_POLL_SECONDS, max(left, 0.005)))

    async def _send(self, content: bytes, request: ChatRequest) -> "Said | _Trouble":
        sent = time.monotonic()
        self._num_sending += 1
        try:
            async with asyncio.timeout(self._server.timeout_seconds):
                url = f"{self._server.url.rstrip('/')}/chat/completions"
                response = await self._client.post(
                    url, content=content, headers={"content-type": "application/json"}
                )
            trouble = self._trouble(response)
            if trouble is None:
                said = read_body(response.text, request)
                self._throttle.went_well()
                return said
        except TimeoutError:
            trouble = _Trouble(f"no reply within {self._server.timeout_seconds:g} s", overloaded=True)
        except MalformedReply as error:
            trouble = _Trouble(f"a malformed reply: {error}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            trouble = _Trouble(self._clean(f"no connection ({type(error).__name__}: {error})"))
        finally:
            self._num_sending -= 1
        if trouble.overloaded:
            self._throttle.overloaded(sent, trouble.retry_after)
        return trouble

    def _trouble(self, response: httpx.Response) -> _Trouble | None:
        """Say what is wrong with a response that is not 200, and whether sending it again may help."""
        status = response.status_code
        if status == 200:
            return None
        answer = self._clean(response.text)
        why = f"HTTP {status}: {answer}" if answer else f"HTTP {status}"
        passing = status in _PASSING or status >= 500
        return _Trouble(
            why,
            overloaded=status in (408, 429) or status >= 500,
            retry_after=retry_after_seconds(response.headers.get("retry-after")) if passing else None,
            hopeless=status in _HOPELESS,
            final=not passing,
            answer=response.text,
        )

    def _note(self, trouble: _Trouble) -> None:
        """Count a failure, and see whether it is the last straw."""
        self._failures_in_row += 1
        longest = self._server.longest_wait_seconds
        if trouble.hopeless:
            self.hopeless = self.hopeless or f"the server refuses: {trouble.why}"
        elif trouble.retry_after is not None and trouble.retry_after > longest:
            self.hopeless = f"the server asks to wait {trouble.retry_after:.0f} s: {trouble.why}"
        elif self._failures_in_row >= self._server.patience and not (trouble.final and self._has_replied):
            self.hopeless = f"{self._failures_in_row} failures in a row, the last one: {trouble.why}"

    def _reply(
        self, request: ChatRequest, said: Said, num_bytes: int, seconds: float, attempts: int
    ) -> ChatReply:
        """Book what a reply used, estimated where the server does not say."""
        self._failures_in_row, self._has_replied = 0, True
        prompt_tokens = num_bytes // 4 if said.prompt_tokens is None else said.prompt_tokens
        told = said.completion_tokens
        completion_tokens = len(said.text.encode()) // 4 + 1 if told is None else told
        cost = self._budget.settle(num_bytes, request.max_tokens, prompt_tokens, completion_tokens)
        probabilities = said.label_probabilities
        return ChatReply(
            said.text, said.finished, probabilities, prompt_tokens, completion_tokens, cost, seconds, attempts
        )

    def _clean(self, text: str) -> str:
        """Make a server's words fit for a terminal and a log: one short line, without the key."""
        if self._server.api_key:
            text = text.replace(self._server.api_key, "***")
        return inert(" ".join(text[:2000].split()))[:200]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
