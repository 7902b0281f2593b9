"""Who may enter: links that work once and the sessions they are exchanged for. Only hashes are stored."""

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rlhf_cli.preference.database import refusing, writing

SESSION_SECONDS = 30 * 24 * 3600.0
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who may enter; the owner also sees everybody's progress and hands out links."""

    name: str
    owner: bool


class Access:
    """One open `access.db`, usable from several threads. Sessions outlive the server."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        with refusing(path):
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = FULL")
            if not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                schema = Path(__file__).with_name("access.sql").read_text(encoding="utf-8")
                self._db.executescript(f"BEGIN IMMEDIATE; {schema}; COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def invite(self, member: Member) -> str:
        """Return a token that admits `member` once; it replaces their unused one and is told only here."""
        token = secrets.token_urlsafe(_SECRET_BYTES)
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO invites VALUES (?, ?, ?)",
                (_hash(token), member.name, member.owner),
            )
        return token

    def invited(self, token: str) -> Member | None:
        """Say whom this unused token admits, without using it up."""
        return self._member("SELECT name, owner FROM invites WHERE token_sha256 = ?", token)

    def redeem(self, token: str) -> str | None:
        """Exchange an unused token for the secret of a session; None when it admits nobody."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        with self._writing() as db:
            row = db.execute(
                "DELETE FROM invites WHERE token_sha256 = ? RETURNING name, owner", (_hash(token),)
            ).fetchone()
            if row is None:
                return None
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (_hash(secret), *row, self._clock()))
        return secret

    def member(self, secret: str) -> Member | None:
        """Say whose session this is; None when it is nobody's or older than SESSION_SECONDS."""
        oldest = self._clock() - SESSION_SECONDS
        query = "SELECT name, owner FROM sessions WHERE secret_sha256 = ? AND created_at > ?"
        return self._member(query, secret, oldest)

    def leave(self, secret: str) -> None:
        """End one session."""
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE secret_sha256 = ?", (_hash(secret),))

    def revoke(self, name: str) -> None:
        """End an annotator's sessions and unused link; the owner's own stay."""
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE name = ? AND NOT owner", (name,))
            db.execute("DELETE FROM invites WHERE name = ? AND NOT owner", (name,))

    def standing(self) -> dict[str, str]:
        """Map each annotator's name to "joined" or, while their link waits, "invited"."""
        with self._lock, refusing(self._path):
            invited = self._db.execute("SELECT name FROM invites WHERE NOT owner").fetchall()
            joined = self._db.execute("SELECT DISTINCT name FROM sessions WHERE NOT owner").fetchall()
        return {name: "invited" for (name,) in invited} | {name: "joined" for (name,) in joined}

    def _member(self, query: str, secret: str, *values: object) -> Member | None:
        with self._lock, refusing(self._path):
            row = self._db.execute(query, (_hash(secret), *values)).fetchone()
        return Member(row[0], bool(row[1])) if row else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, writing(self._db, self._path) as db:
            yield db


def form_token(secret: str) -> str:
    """Return what every form of this session must carry: another site cannot know it."""
    return hashlib.sha256(f"form {secret}".encode()).hexdigest()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
