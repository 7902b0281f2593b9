"""The desk where people write answers: who gets which prompt, and an append-only chain of what each wrote.

A prompt is leased: nobody else gets it until it is answered or the lease runs out. An answer that comes later is
kept too, as one more demonstration. Every method is one transaction, on disk when it returns.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from rlhf_cli.errors import RunConflictError
from rlhf_cli.preference.ballots import register
from rlhf_cli.preference.desk import Progress
from rlhf_cli.preference.store import Store, text_from_json
from rlhf_cli.records import Text, last_user_text

_WORDS_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Assignment:
    """A prompt to answer; `draft` is the text to start from: one's own that was undone, a model's, or ""."""

    prompt_id: int
    prompt: Text
    draft: str
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class Writing:
    """What a person made of a prompt; `text` is "" where they skipped it."""

    prompt_id: int
    labeler: str
    outcome: Literal["written", "skip"]
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PastWriting:
    """A writing in force; `words` are the first of the prompt."""

    words: str
    writing: Writing


class WritingDesk:
    """Hands the prompts of a store to people, each to one of them. Close it, or use `with`."""

    def __init__(
        self, store: Store, *, lease_seconds: float = 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = Store(store.path, any_thread=True)
        self._lock = threading.Lock()
        self._lease_seconds = lease_seconds
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._store.__exit__()

    def next(self, annotator: str) -> Assignment | None:
        """Return the prompt this person holds, else hand out another; None when there is none for them now."""
        with self._lock, self._store.transaction() as db:
            register(db, annotator, "human", {})
            row = db.execute(_NEXT, {"labeler": annotator, "now": self._clock()}).fetchone()
            if row is None:
                return None
            self._lease(db, row["id"], annotator)
            return self._assignment(db, row["id"], annotator)

    def write(self, writing: Writing, *, key: str) -> None:
        """Store what a person wrote, or that they skipped. The same `key` again changes nothing.

        Raises RunConflictError when this person has answered the prompt, there is no such prompt, or the key belongs
        to another answer.
        """
        with self._lock, self._store.transaction() as db:
            known = db.execute(_SENT, (key,)).fetchone()
            if known is not None:
                _require_same(known, (writing.prompt_id, writing.labeler, writing.outcome))
                return
            _require_prompt(db, writing.prompt_id)
            last = db.execute(_LAST, (writing.prompt_id, writing.labeler)).fetchone()
            if last is not None and last["outcome"] != "undone":
                raise RunConflictError(
                    f"prompt {writing.prompt_id} is answered already by {writing.labeler}",
                    fix="undo it first",
                )
            _append(db, writing, writing.outcome, key=key, supersedes=last["id"] if last else None)
            db.execute("DELETE FROM writing_leases WHERE prompt_id = ?", (writing.prompt_id,))

    def undo(self, annotator: str, *, key: str) -> Assignment | None:
        """Withdraw this person's newest answer and hand its prompt out again, the text as draft; None without one.

        The same `key` again changes nothing. Raises RunConflictError when the key belongs to an answer.
        """
        with self._lock, self._store.transaction() as db:
            known = db.execute(_SENT, (key,)).fetchone()
            if known is not None:
                _require_same(known, (known["prompt_id"], annotator, "undone"))
                return self._assignment(db, known["prompt_id"], annotator)
            newest = "SELECT * FROM writings WHERE labeler = ? ORDER BY id DESC LIMIT 1"
            row = db.execute(newest, (annotator,)).fetchone()
            if row is None:
                return None
            _append(db, Writing(row["prompt_id"], annotator, "skip"), "undone", key=key, supersedes=row["id"])
            self._lease(db, row["prompt_id"], annotator)
            return self._assignment(db, row["prompt_id"], annotator)

    def release(self, annotator: str) -> None:
        """Let others have what this person holds."""
        with self._lock, self._store.transaction() as db:
            db.execute("DELETE FROM writing_leases WHERE labeler = ?", (annotator,))

    def progress(self, annotator: str) -> Progress:
        """Count this person's answers, the prompts that are settled, and all prompts; skipped ones are settled."""
        counted = """SELECT (SELECT COUNT(*) FROM writings WHERE labeler = ?),
                     (SELECT COUNT(DISTINCT prompt_id) FROM writings), (SELECT COUNT(*) FROM prompts)"""
        with self._lock:
            return Progress(*self._store.rows(counted, (annotator,))[0])

    def history(self, annotator: str, limit: int = 20) -> list[PastWriting]:
        """Return this person's answers in force, newest first."""
        query = """SELECT w.*, content FROM writings AS w JOIN prompts ON prompts.id = prompt_id
                   WHERE labeler = ? ORDER BY w.id DESC LIMIT ?"""
        with self._lock:
            return [
                PastWriting(_words(row), _writing(row)) for row in self._store.rows(query, (annotator, limit))
            ]

    def writings(self) -> list[Writing]:
        """Return everybody's answers in force, by prompt and time."""
        with self._lock:
            return writings_of(self._store)

    def _lease(self, db: sqlite3.Connection, prompt_id: int, annotator: str) -> None:
        db.execute("DELETE FROM writing_leases WHERE prompt_id = ?", (prompt_id,))
        lease = "INSERT INTO writing_leases (prompt_id, labeler, expires_at) VALUES (?, ?, ?)"
        db.execute(lease, (prompt_id, annotator, self._clock() + self._lease_seconds))

    def _assignment(self, db: sqlite3.Connection, prompt_id: int, annotator: str) -> Assignment:
        row = db.execute("SELECT content FROM prompts WHERE id = ?", (prompt_id,)).fetchone()
        done, total = db.execute(_COUNTS).fetchone()
        draft = db.execute(_DRAFT, {"labeler": annotator, "prompt": prompt_id}).fetchone()[0]
        prompt = text_from_json(json.loads(row["content"]))
        return Assignment(prompt_id, prompt, draft, min(done + 1, total), total)


def writings_of(store: Store) -> list[Writing]:
    """Return everybody's answers in force, by prompt and time."""
    return [_writing(row) for row in store.rows("SELECT * FROM writings ORDER BY prompt_id, id")]


# What one holds comes first, the newest before the others; then what nobody has answered or holds.
_NEXT = """SELECT prompts.id FROM prompts LEFT JOIN writing_leases AS l ON l.prompt_id = prompts.id
           WHERE NOT EXISTS (SELECT 1 FROM writings AS w WHERE w.prompt_id = prompts.id)
           AND (l.id IS NULL OR l.labeler = :labeler OR l.expires_at <= :now)
           ORDER BY coalesce(l.labeler = :labeler, 0) DESC,
                    CASE WHEN l.labeler = :labeler THEN -l.id END, prompts.id LIMIT 1"""
_SENT = "SELECT prompt_id, labeler, outcome FROM demonstrations WHERE key = ?"
_LAST = (
    """SELECT id, outcome FROM demonstrations WHERE prompt_id = ? AND labeler = ? ORDER BY id DESC LIMIT 1"""
)
_COUNTS = "SELECT (SELECT COUNT(DISTINCT prompt_id) FROM writings), (SELECT COUNT(*) FROM prompts)"
_DRAFT = """SELECT coalesce(
            (SELECT text FROM demonstrations WHERE prompt_id = :prompt AND labeler = :labeler
             AND outcome = 'written' ORDER BY id DESC LIMIT 1),
            (SELECT text FROM responses WHERE prompt_id = :prompt AND candidate = 0 AND sample = 0), '')"""


def _append(
    db: sqlite3.Connection, writing: Writing, outcome: str, *, key: str, supersedes: int | None
) -> None:
    insert = """INSERT INTO demonstrations (key, prompt_id, labeler, outcome, text, seconds, supersedes)
                VALUES (?, ?, ?, ?, ?, ?, ?)"""
    values = (key, writing.prompt_id, writing.labeler, outcome, writing.text, writing.seconds, supersedes)
    db.execute(insert, values)


def _require_prompt(db: sqlite3.Connection, prompt_id: int) -> None:
    if db.execute("SELECT 1 FROM prompts WHERE id = ?", (prompt_id,)).fetchone() is None:
        raise RunConflictError(f"there is no prompt {prompt_id}", fix="ask for the next prompt")


def _require_same(known: sqlite3.Row, sent: tuple[int, str, str]) -> None:
    if tuple(known) != sent:
        raise RunConflictError("this key belongs to another answer", fix="use a key for each answer")


def _writing(row: sqlite3.Row) -> Writing:
    return Writing(row["prompt_id"], row["labeler"], row["outcome"], row["text"], row["seconds"])


def _words(row: sqlite3.Row) -> str:
    prompt = last_user_text(text_from_json(json.loads(row["content"])))
    return " ".join(prompt.split())[:_WORDS_LENGTH]
