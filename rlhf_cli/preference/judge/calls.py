"""Replies that were paid for, in the store's `calls` table: each on disk before it is used, none asked for twice."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from rlhf_cli.preference.database import connect, refusing, writing
from rlhf_cli.preference.judge.chat import Chat, ChatFailure, ChatReply, ChatRequest


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What the calls of a store have used; `cost` is in the currency of the prices at the time."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __str__(self) -> str:
        cost = f", cost {self.cost:.4g}" if self.cost else ""
        return f"{self.calls} calls, {self.tokens} tokens{cost}"


class Calls:
    """The finished calls of one store, through a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises DataError for a file that is no store."""
        self.path = path
        self._db = connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get(self, key: str) -> ChatReply | None:
        """Return the reply that was stored under `key`."""
        with refusing(self.path):
            row = self._db.execute("SELECT reply FROM calls WHERE cache_key = ?", (key,)).fetchone()
        return ChatReply(**json.loads(row["reply"])) if row else None

    def add(self, key: str, model: str, reply: ChatReply) -> None:
        """Store a reply; it is on disk when this returns."""
        tokens = reply.prompt_tokens + reply.completion_tokens
        row = (key, model, json.dumps(dataclasses.asdict(reply)), reply.attempts, tokens, reply.cost)
        columns = "cache_key, model, reply, attempts, tokens, cost"
        with writing(self._db, self.path) as db:
            db.execute(f"INSERT INTO calls ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)

    def spent(self) -> Spent:
        """Sum up every call so far, those of earlier attempts too."""
        query = "SELECT total(attempts) AS calls, total(tokens) AS tokens, total(cost) AS cost FROM calls"
        with refusing(self.path):
            row = self._db.execute(query).fetchone()
        return Spent(int(row["calls"]), int(row["tokens"]), float(row["cost"]))


class CachedChat:
    """A chat that asks the one inside only what no stored call answers. Failures are not stored."""

    def __init__(self, chat: Chat, calls: Calls) -> None:
        self.name = chat.name
        self.identity = chat.identity
        self._chat = chat
        self._calls = calls

    def replies(
        self, requests: Iterable[ChatRequest]
    ) -> Iterator[tuple[ChatRequest, ChatReply | ChatFailure]]:
        """Yield stored replies first, then the missing ones as they come."""
        missing = []
        for request in dict.fromkeys(requests):
            known = self._calls.get(cache_key(self.identity, request))
            if known is None:
                missing.append(request)
            else:
                yield request, known
        for request, outcome in self._chat.replies(missing):
            if isinstance(outcome, ChatReply):
                self._calls.add(cache_key(self.identity, request), self.name, outcome)
            yield request, outcome


def cache_key(identity: str, request: ChatRequest) -> str:
    """Hash the model's identity and all of the request: messages, parameters, seed."""
    text = json.dumps([identity, dataclasses.asdict(request)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
