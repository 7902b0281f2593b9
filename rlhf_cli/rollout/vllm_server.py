"""A vLLM server over HTTP: token ids in, sampled token ids with log-probs out, its weights replaced from a directory.

The routes that replace weights exist in the server's development mode alone (VLLM_SERVER_DEV_MODE=1). They let
whoever reaches them run code there, so such a server listens on loopback or a private network.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from rlhf_cli.errors import Preempted, UnavailableError
from rlhf_cli.rollout.engine import Completion, Sampling

_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 20.0
_RESUME_SECONDS = 5.0
"""Longest wait for a server to resume after something went wrong: a scheduler that stops us gives half a minute."""
_MOST_SEED = 2**63 - 1
_LOG = "see the server's log; start it again if it has ended, then run the same command again"
_START = "start it with scripts/vllm_server, which sets what is needed"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion, and which versions of the weights have sampled it."""

    completion: Completion
    versions: frozenset[str]


class VllmServer:
    """Talks to one server at `url`. No request takes longer than `timeout_seconds`; `should_stop` ends a wait early.

    Every method raises UnavailableError when the server does not answer, or answers anything but what was asked.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        concurrency: int = 64,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        self._should_stop = should_stop

    def check(self) -> None:
        """Find out early whether the server is alive and lets its weights be replaced."""
        self._call("GET", "/health")
        self._call("GET", "/weight_info", hint=f"it is not in development mode; {_START}")

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sampled]:
        """Sample one completion per prompt, in order, many requests at once. Raises Preempted when asked to stop."""
        if not prompts:
            return []
        return asyncio.run(self._generate_all(prompts, sampling, seeds))

    def load_weights(self, folder: Path, version: str) -> None:
        """Have the server read its weights from `folder` and call them `version`. Raises Preempted when asked to stop.

        A server that another trainer has left paused goes on afterwards.
        """
        with self._paused():
            arguments = {"weights_path": str(folder)}
            body = {"method": "reload_weights", "kwargs": arguments, "timeout": self._timeout_seconds}
            hint = f"it must see the folder {folder} as we do, and serve the model that is trained; {_LOG}"
            self._call("POST", "/collective_rpc", body, hint=hint)
            self._call("POST", "/reset_prefix_cache")
            self._call("POST", "/update_weight_version", {"new_version": version})
        told = self._call("GET", "/weight_info").get("weight_version")
        if told != version:
            raise UnavailableError(
                f"the server says its weights are {told!r} right after it was given {version!r}",
                where=self.url,
                fix="let no other run use this server, then run the same command again",
            )

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Pause the server, and resume it come what may: a request to a paused one waits for ever."""
        done = False
        try:
            self._call("POST", "/pause?mode=wait")
            yield
            done = True
        finally:
            seconds = self._timeout_seconds if done else min(_RESUME_SECONDS, self._timeout_seconds)
            with nullcontext() if done else suppress(UnavailableError):  # the first error says more
                asyncio.run(self._send_one("POST", "/resume", seconds=seconds))

    async def _generate_all(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sampled]:
        turn = asyncio.Semaphore(self._concurrency)
        async with self._connect(self._timeout_seconds) as client:
            return await self._all_of(
                [
                    asyncio.create_task(self._generate_one(client, turn, prompt, sampling, seed))
                    for prompt, seed in zip(prompts, seeds, strict=True)
                ]
            )

    async def _all_of(self, tasks: Sequence[asyncio.Task[T]]) -> list[T]:
        """Wait for all tasks. Raises the first error of one, Preempted as soon as we are asked to stop."""
        pending = set(tasks)
        try:
            while pending:
                if self._should_stop():
                    raise Preempted("interrupted while the rollout server was at work")
                done, pending = await asyncio.wait(
                    pending, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in tasks]

    async def _generate_one(
        self,
        client: httpx.AsyncClient,
        turn: asyncio.Semaphore,
        prompt: Sequence[int],
        sampling: Sampling,
        seed: int,
    ) -> Sampled:
        parameters = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": -1,
            "seed": seed & _MOST_SEED,
            "logprobs": 0,
            "stop_token_ids": list(sampling.stop_ids),
        }
        body = {"token_ids": list(prompt), "sampling_params": parameters}
        hint = f"it was started without --enable-scale-out; {_START}"
        async with turn:
            reply = await self._send(client, "POST", "/inference/v1/generate", body, hint=hint)
        try:
            return _read(reply, sampling)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UnavailableError(
                f"the server's reply is not understood: {type(error).__name__}: {error}",
                where=f"{self.url}/inference/v1/generate",
                fix="use a version of vLLM that docs/scaling.md lists",
            ) from error

    def _call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, hint: str = ""
    ) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            sending = self._send_one(method, path, body, seconds=self._timeout_seconds, hint=hint)
            return (await self._all_of([asyncio.create_task(sending)]))[0]

        return asyncio.run(call())

    async def _send_one(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        seconds: float,
        hint: str = "",
    ) -> dict[str, Any]:
        async with self._connect(seconds) as client:
            return await self._send(client, method, path, body, hint=hint)

    def _connect(self, seconds: float) -> httpx.AsyncClient:
        limits = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        # No proxy: a rollout server is on this machine or in its private network.
        return httpx.AsyncClient(timeout=limits, trust_env=False)

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        *,
        hint: str,
    ) -> dict[str, Any]:
        """Send one request; return its JSON object, {} where there is none."""
        try:
            response = await client.request(method, self.url + path, json=body)
        except httpx.ConnectTimeout as error:
            raise UnavailableError(
                f"no connection within {_CONNECT_SECONDS:g} s", where=self.url + path, fix=_START
            ) from error
        except httpx.TimeoutException as error:
            raise UnavailableError(
                f"no answer within {self._timeout_seconds:g} s",
                where=self.url + path,
                fix="see the server's log, or raise rollout.timeout_seconds",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"no connection to the rollout server ({type(error).__name__}: {error})",
                where=self.url + path,
                fix=f"{_START}, then run the same command again",
            ) from error
        if response.status_code != 200:
            refused = response.status_code in (403, 404) and hint
            raise UnavailableError(
                f"the rollout server answers HTTP {response.status_code}: {_in_short(response.text)}",
                where=self.url + path,
                fix=hint if refused or (response.status_code == 500 and hint) else _LOG,
            )
        return _object_in(response)


def _object_in(response: httpx.Response) -> dict[str, Any]:
    try:
        said = response.json()
    except ValueError:  # /health has no body
        return {}
    return said if isinstance(said, dict) else {}


def _in_short(text: str) -> str:
    return " ".join(text.split())[:300] or "(nothing)"


def _read(reply: Mapping[str, Any], sampling: Sampling) -> Sampled:
    """Read a completion; ids and log-probs must be of one length, and stop where they were to, no earlier."""
    choice = reply["choices"][0]
    token_ids = tuple(int(token) for token in choice["token_ids"])
    logprobs = tuple(float(item["logprob"]) for item in choice["logprobs"]["content"])
    finished = choice["finish_reason"] == "stop"
    versions = frozenset(str(part["version"]) for part in choice["weight_versions"])
    if not token_ids or len(token_ids) != len(logprobs):
        raise ValueError(f"{len(token_ids)} tokens with {len(logprobs)} log-probs")
    if finished != (token_ids[-1] in sampling.stop_ids):
        raise ValueError(f"finish_reason is {choice['finish_reason']}, the last token {token_ids[-1]}")
    if not finished and len(token_ids) != sampling.max_new_tokens:
        raise ValueError(
            f"an answer ends after {len(token_ids)} of {sampling.max_new_tokens} tokens "
            f"({choice['finish_reason']}); --max-model-len may be too small"
        )
    if not versions:
        raise ValueError("no version of the weights")
    return Sampled(Completion(token_ids, logprobs, finished), versions)
