"""Scores from a server: answers posted in batches as JSON, none of them twice.

POST url    {"schema": "rlhf.scores/1", "items": [{"prompt": "..." or a list of messages, "completion": "...",
            "finished": true, "prompt_ids": [...], "completion_ids": [...]}, ...]}
200         {"scores": [0.3, ...]}, one finite number each, higher is better

`rlhf serve-reward` is such a server, and any other program can be one. A score that has come is kept on disk under
the hash of what was asked, so a run that is continued asks for the missing ones alone.
"""

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, Preempted, UnavailableError
from rlhf_cli.records import Text

SCHEMA = "rlhf.scores/1"
_POLL_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class ScoreServer:
    """Where scores come from. A request is sent again `retries` times; `api_key` is sent and never shown."""

    url: str
    batch_size: int = 64
    timeout_seconds: float = 60.0
    retries: int = 5
    first_pause_seconds: float = 0.5
    api_key: str | None = field(default=None, repr=False)


class ServedScorer:
    """Asks a server what answers are worth. `should_stop` is asked while it waits."""

    name = "http"

    def __init__(self, server: ScoreServer, cache: Path, *, should_stop: Callable[[], bool]) -> None:
        self._server = server
        self._cache = cache
        self._should_stop = should_stop

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per answer.

        Raises UnavailableError when the server refuses or stays silent, DataError when its reply is not scores,
        Preempted when asked to stop; scores that have come are kept.
        """
        items = [as_item(episode) for episode in episodes]
        keys = [_key(self._server.url, item) for item in items]
        with closing(_open(self._cache)) as known, self._connect() as client:
            missing = [i for i, key in enumerate(keys) if _find(known, key) is None]
            for start in range(0, len(missing), self._server.batch_size):
                batch = missing[start : start + self._server.batch_size]
                scores = self._ask(client, [items[i] for i in batch])
                with known:
                    known.executemany(
                        "INSERT OR IGNORE INTO scores VALUES (?, ?)",
                        zip((keys[i] for i in batch), scores, strict=True),
                    )
            return list(_found(known, keys))

    def _connect(self) -> httpx.Client:
        key = self._server.api_key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(timeout=self._server.timeout_seconds, headers=headers)

    def _ask(self, client: httpx.Client, items: Sequence[dict[str, Any]]) -> list[float]:
        """Send one batch until there is a reply or an end of patience."""
        for attempt in range(self._server.retries + 1):
            if attempt:
                pause = self._server.first_pause_seconds * 2.0 ** (attempt - 1)
                self._wait(min(pause, _LONGEST_PAUSE_SECONDS))
            try:
                response = client.post(self._server.url, json={"schema": SCHEMA, "items": items})
            except httpx.HTTPError as error:
                trouble = f"no reply ({type(error).__name__}: {error})"
                continue
            if response.status_code == 200:
                return self._read(response, len(items))
            trouble = f"HTTP {response.status_code}: {' '.join(response.text[:300].split())}"
            if response.status_code not in _PASSING:
                break
        raise UnavailableError(
            f"the reward server gives no scores: {trouble}",
            where=self._server.url,
            fix="mend it, then run the same command again: scores that have come are kept",
        )

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._should_stop():
                raise Preempted("interrupted while waiting for scores")
            time.sleep(min(_POLL_SECONDS, left))

    def _read(self, response: httpx.Response, num_items: int) -> list[float]:
        try:
            said = response.json()
        except ValueError:
            said = None
        scores = said.get("scores") if isinstance(said, dict) else None
        if not isinstance(scores, list) or len(scores) != num_items or not all(map(_is_finite, scores)):
            raise DataError(
                f"the reward server's reply is not {num_items} finite scores: {response.text[:200]!r}",
                where=self._server.url,
                fix='answer {"scores": [...]} with one number for each item, in order',
            )
        return [float(score) for score in scores]


def as_item(episode: Episode) -> dict[str, Any]:
    """Say in JSON what is to be scored."""
    return {
        "prompt": _as_json(episode.prompt),
        "completion": episode.completion_text,
        "finished": episode.finished,
        "prompt_ids": list(episode.prompt_ids),
        "completion_ids": list(episode.completion_ids),
    }


def _as_json(prompt: Text) -> object:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def _is_finite(score: object) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)


def _key(url: str, item: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([url, item], sort_keys=True).encode()).hexdigest()


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL NOT NULL)")
    return connection


def _find(known: sqlite3.Connection, key: str) -> float | None:
    row = known.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
    return None if row is None else float(row[0])


def _found(known: sqlite3.Connection, keys: Sequence[str]) -> Iterator[float]:
    for key in keys:
        score = _find(known, key)
        assert score is not None
        yield score
