"""The desk where people get questions and hand in verdicts: the only door for them, from terminal and web page.

A question is leased: nobody else gets it until it is answered or the lease runs out. Every method is one
transaction, on disk when it returns, so people at several threads or processes never take the same place.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rlhf_cli.errors import RunConflictError
from rlhf_cli.preference.ballots import Vote, append, present, register, withdraw
from rlhf_cli.preference.labeler import Question, Verdict, blind, question_of, vote_on
from rlhf_cli.preference.store import Store, text_from_json
from rlhf_cli.records import last_user_text
from rlhf_cli.run.chance import draw

_WORDS_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person and the whole collection are, in votes; surplus votes are in `mine` only."""

    mine: int
    done: int
    total: int

    @property
    def finished(self) -> bool:
        """Say whether every vote that is wanted is there."""
        return self.done >= self.total


@dataclass(frozen=True, slots=True)
class PastVote:
    """A verdict in force, as its person saw it; `words` are the first of the prompt."""

    presentation_id: int
    words: str
    verdict: Verdict


class Desk:
    """Hands the questions of a store to people. Open it once all pairs are stored; close it, or use `with`.

    A share `overlap_fraction` of the pairs, rounded to whole pairs, gets `votes_per_pair` votes of different people,
    the others get one. Which they are, and which answer each person sees first, follows from `seed`; every person
    sees response 1 first in half of their questions.
    """

    def __init__(
        self,
        store: Store,
        *,
        votes_per_pair: int,
        overlap_fraction: float,
        seed: int,
        lease_seconds: float = 900.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = Store(store.path, any_thread=True)
        self._lock = threading.Lock()
        self._seed = seed
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._set_demand(votes_per_pair, overlap_fraction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._store.__exit__()

    def next(self, annotator: str) -> Question | None:
        """Return the question this person holds, else hand out another; None when there is none for them now."""
        with self._lock:
            with self._store.transaction() as db:
                register(db, annotator, "human", {})
                presentation = self._held(db, annotator) or self._draw(db, annotator)
                if presentation is not None:
                    self._lease(db, presentation)
            return None if presentation is None else self._question(annotator, presentation)

    def question(self, annotator: str, presentation_id: int) -> Question | None:
        """Return a question that was handed to this person, answered or not; None when it was not."""
        with self._lock:
            return self._question(annotator, presentation_id)

    def vote(self, annotator: str, presentation_id: int, verdict: Verdict, *, key: str) -> None:
        """Store a verdict. The same `key` again changes nothing; a lease that has run out does not matter.

        Raises RunConflictError when the question is not this person's or decided already, or when the key belongs
        to another verdict.
        """
        with self._lock, self._store.transaction() as db:
            row = db.execute(_PRESENTATION, (presentation_id, annotator)).fetchone()
            if row is None:
                raise RunConflictError(
                    f"question {presentation_id} was not handed to {annotator}",
                    fix="ask for the next question",
                )
            vote = vote_on(row["pair_id"], verdict, annotator, row["first"])
            if append(db, presentation_id, vote, key=key):
                db.execute("DELETE FROM leases WHERE presentation_id = ?", (presentation_id,))

    def undo(self, annotator: str, *, key: str) -> Question | None:
        """Withdraw this person's newest verdict in force and hand its question out again; None when there is none.

        The same `key` again changes nothing. Raises RunConflictError when the key belongs to a verdict.
        """
        with self._lock:
            with self._store.transaction() as db:
                presentation = withdraw(db, annotator, key=key)
                if presentation is not None and not _is_answered(db, presentation):
                    # On top of what this person holds besides: that comes again afterwards.
                    db.execute("DELETE FROM leases WHERE presentation_id = ?", (presentation,))
                    self._lease(db, presentation)
            return None if presentation is None else self._question(annotator, presentation)

    def release(self, annotator: str) -> None:
        """Let others have what this person holds; nobody else having taken it, the person gets it again."""
        with self._lock, self._store.transaction() as db:
            query = """UPDATE leases SET expires_at = 0
                       WHERE presentation_id IN (SELECT id FROM presentations WHERE labeler = ?)"""
            db.execute(query, (annotator,))

    def progress(self, annotator: str) -> Progress:
        """Count this person's votes, and the votes that are wanted, there and not."""
        with self._lock:
            return self._progress(annotator)

    def history(self, annotator: str, limit: int = 20) -> list[PastVote]:
        """Return this person's verdicts in force, newest first."""
        # CROSS JOIN keeps the order of the tables: from the newest backwards.
        query = """SELECT p.id, first, content, winner, reason, seconds, strength, tags FROM votes AS v
                   CROSS JOIN presentations AS p ON p.id = presentation_id
                   JOIN pairs ON pairs.id = pair_id JOIN prompts ON prompts.id = prompt_id
                   WHERE labeler = ? ORDER BY v.id DESC LIMIT ?"""
        with self._lock:
            return [_past_vote(row) for row in self._store.rows(query, (annotator, limit))]

    def votes(self) -> list[Vote]:
        """Return everybody's votes in force, surplus left out."""
        with self._lock:
            return self._store.votes()

    def _set_demand(self, votes_per_pair: int, overlap_fraction: float) -> None:
        ids = [row["id"] for row in self._store.rows("SELECT id FROM pairs WHERE NOT identical")]
        ids.sort(key=lambda pair_id: draw(self._seed, "overlap", pair_id))
        num_shared = round(overlap_fraction * len(ids))
        wanted = [(pair_id, votes_per_pair if i < num_shared else 1) for i, pair_id in enumerate(ids)]
        given = """UPDATE demand SET given =
                   (SELECT COUNT(*) FROM presentations AS p JOIN labelers ON name = labeler
                    JOIN votes AS v ON v.presentation_id = p.id
                    WHERE p.pair_id = demand.pair_id AND kind = 'human')"""
        with self._store.transaction() as db:
            db.execute("DELETE FROM demand")
            db.executemany("INSERT INTO demand (pair_id, wanted, given) VALUES (?, ?, 0)", sorted(wanted))
            total = "INSERT OR REPLACE INTO demand_total (only_row, done, wanted) VALUES (1, 0, ?)"
            db.execute(total, (sum(votes for _, votes in wanted),))
            db.execute(given)  # which the trigger on `demand` adds up

    def _held(self, db: sqlite3.Connection, annotator: str) -> int | None:
        """Return what this person holds and nobody else has taken; give the rest back."""
        for row in db.execute(_HELD, {"labeler": annotator, "now": self._clock()}).fetchall():
            if row["is_free"]:
                return int(row["presentation_id"])
            db.execute("DELETE FROM leases WHERE presentation_id = ?", (row["presentation_id"],))
        return None

    def _draw(self, db: sqlite3.Connection, annotator: str) -> int | None:
        """Choose the next pair for this person: the first one behind all they have seen, else any that is left."""
        seen = "SELECT COUNT(*), coalesce(max(pair_id), 0) FROM presentations WHERE labeler = ?"
        num_seen, furthest = db.execute(seen, (annotator,)).fetchone()
        for after in (furthest, 0):
            values = {"labeler": annotator, "now": self._clock(), "after": after}
            if (row := db.execute(_OPEN, values).fetchone()) is not None:
                # Of every two questions in a row, one shows response 1 first.
                coin = draw(self._seed, "order", annotator, num_seen // 2)
                return present(db, row["pair_id"], annotator, 1 + (coin + num_seen) % 2)
        return None

    def _lease(self, db: sqlite3.Connection, presentation_id: int) -> None:
        lease = """INSERT INTO leases (presentation_id, expires_at) VALUES (?, ?)
                   ON CONFLICT (presentation_id) DO UPDATE SET expires_at = excluded.expires_at"""
        db.execute(lease, (presentation_id, self._clock() + self._lease_seconds))

    def _progress(self, annotator: str) -> Progress:
        ((done, total),) = self._store.rows("SELECT done, wanted FROM demand_total")
        return Progress(self._store.num_votes(annotator), done, total)

    def _question(self, annotator: str, presentation_id: int) -> Question | None:
        rows = self._store.rows(_PRESENTATION, (presentation_id, annotator))
        if not rows:
            return None
        progress = self._progress(annotator)
        number = min(progress.done + 1, progress.total)
        pair = self._store.pair(rows[0]["pair_id"])
        return question_of(pair, rows[0]["first"], number, progress.total, presentation_id=presentation_id)


_PRESENTATION = "SELECT pair_id, first FROM presentations WHERE id = ? AND labeler = ?"

# Places of pair d that others hold.
_HELD_BY_OTHERS = """(SELECT COUNT(*) FROM presentations AS other
                      JOIN leases AS theirs ON theirs.presentation_id = other.id
                      WHERE other.pair_id = d.pair_id AND other.labeler <> :labeler AND theirs.expires_at > :now)"""

_HELD = f"""SELECT mine.presentation_id, d.given + {_HELD_BY_OTHERS} < d.wanted AS is_free
            FROM leases AS mine JOIN presentations AS p ON p.id = mine.presentation_id
            JOIN demand AS d ON d.pair_id = p.pair_id
            WHERE p.labeler = :labeler ORDER BY mine.id DESC"""

_OPEN = f"""SELECT d.pair_id FROM demand AS d
            WHERE d.given < d.wanted AND d.pair_id > :after
            AND NOT EXISTS (SELECT 1 FROM presentations AS p JOIN votes AS v ON v.presentation_id = p.id
                            WHERE p.pair_id = d.pair_id AND p.labeler = :labeler)
            AND d.given + {_HELD_BY_OTHERS} < d.wanted
            ORDER BY d.pair_id LIMIT 1"""


def _is_answered(db: sqlite3.Connection, presentation_id: int) -> bool:
    query = "SELECT 1 FROM votes WHERE presentation_id = ?"
    return db.execute(query, (presentation_id,)).fetchone() is not None


def _past_vote(row: sqlite3.Row) -> PastVote:
    choice = blind(row["winner"], row["first"])
    tags = tuple(json.loads(row["tags"]))
    verdict = Verdict(choice, row["reason"], row["seconds"], row["strength"], tags)
    words = " ".join(last_user_text(text_from_json(json.loads(row["content"]))).split())
    return PastVote(row["id"], words[:_WORDS_LENGTH], verdict)
