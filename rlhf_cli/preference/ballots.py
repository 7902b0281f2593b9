"""The rows of a vote: who judges, what each was shown, and the append-only chain of what each said.

Every function works inside the caller's transaction.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from rlhf_cli.errors import RunConflictError

Winner = Literal["1", "2", "tie", "both_bad", "skip", "error"]
WINNERS: tuple[Winner, ...] = get_args(Winner)
LabelerKind = Literal["human", "rule", "judge", "reward", "import"]


@dataclass(frozen=True, slots=True)
class Vote:
    """A judgement on one pair: response "1" or "2" is better, or why neither is.

    "error" is a machine's failure: no preference, kept so that it is counted and can be asked again. `strength` is 0
    (not said) to 3 (much better). `p_first_response` is P(response 1 is better), which machines know. `raw` is what
    a machine said, or why it failed. `first` is the response that was shown first; 0 when both orders were asked.
    """

    pair_id: int
    winner: Winner
    labeler: str
    reason: str = ""
    seconds: float = 0.0
    strength: int = 0
    tags: tuple[str, ...] = ()
    p_first_response: float | None = None
    raw: str = ""
    first: int = 1


def register(db: sqlite3.Connection, name: str, kind: LabelerKind, detail: Mapping[str, object]) -> None:
    """Note who judges under this name. Raises RunConflictError when somebody else has."""
    text = json.dumps(dict(detail), sort_keys=True, ensure_ascii=False)
    db.execute("INSERT OR IGNORE INTO labelers (name, kind, detail) VALUES (?, ?, ?)", (name, kind, text))
    known = db.execute("SELECT kind, detail FROM labelers WHERE name = ?", (name,)).fetchone()
    if tuple(known) != (kind, text):
        raise RunConflictError(
            f"votes of {known['kind']} {name!r} are stored, with {known['detail']}; this is {kind}, with {text}",
            fix="give this labeler another name, or start anew with --fresh or another run_dir",
        )


def present(db: sqlite3.Connection, pair_id: int, labeler: str, first: int) -> int:
    """Return the id of this labeler's presentation of a pair; when there is none yet, `first` is shown first."""
    values = (pair_id, labeler, first)
    db.execute("INSERT OR IGNORE INTO presentations (pair_id, labeler, first) VALUES (?, ?, ?)", values)
    query = "SELECT id FROM presentations WHERE pair_id = ? AND labeler = ?"
    return int(db.execute(query, values[:2]).fetchone()["id"])


def append(db: sqlite3.Connection, presentation_id: int, vote: Vote, *, key: str) -> bool:
    """Add a judgement at the end of its presentation's chain; return False when this `key` is there already.

    A machine's "error" gives way to what it says later. Raises RunConflictError when the presentation is decided
    otherwise, or the key belongs to another judgement.
    """
    sent = "SELECT presentation_id, winner FROM judgements WHERE key = ?"
    known = db.execute(sent, (key,)).fetchone()
    if known is not None:
        if tuple(known) != (presentation_id, vote.winner):
            raise RunConflictError(
                "this key belongs to another judgement", fix="use a key for each judgement"
            )
        return False
    last = _last(db, presentation_id)
    if last is not None and last["winner"] not in ("undone", "error"):
        raise RunConflictError(
            f"pair {vote.pair_id} is decided already by {vote.labeler}", fix="undo it first"
        )
    _insert(db, presentation_id, vote, vote.winner, key=key, supersedes=last["id"] if last else None)
    return True


def withdraw(db: sqlite3.Connection, labeler: str, *, key: str) -> int | None:
    """Undo this labeler's newest judgement in force; return its presentation, or None when there is none.

    The same `key` again changes nothing. Raises RunConflictError when it belongs to another judgement.
    """
    sent = """SELECT presentation_id, winner, labeler FROM judgements
              JOIN presentations AS p ON p.id = presentation_id WHERE key = ?"""
    known = db.execute(sent, (key,)).fetchone()
    if known is not None:
        if tuple(known)[1:] != ("undone", labeler):
            raise RunConflictError(
                "this key belongs to another judgement", fix="use a key for each judgement"
            )
        return int(known["presentation_id"])
    # CROSS JOIN keeps the order of the tables: from the newest backwards, not through all this labeler ever saw.
    newest = """SELECT v.id, presentation_id, pair_id FROM votes AS v
                CROSS JOIN presentations AS p ON p.id = presentation_id
                WHERE labeler = ? ORDER BY v.id DESC LIMIT 1"""
    row = db.execute(newest, (labeler,)).fetchone()
    if row is None:
        return None
    _insert(
        db,
        row["presentation_id"],
        Vote(row["pair_id"], "skip", labeler),
        "undone",
        key=key,
        supersedes=row["id"],
    )
    return int(row["presentation_id"])


def _last(db: sqlite3.Connection, presentation_id: int) -> sqlite3.Row | None:
    query = "SELECT id, winner FROM judgements WHERE presentation_id = ? ORDER BY id DESC LIMIT 1"
    row: sqlite3.Row | None = db.execute(query, (presentation_id,)).fetchone()
    return row


def _insert(
    db: sqlite3.Connection, presentation_id: int, vote: Vote, winner: str, *, key: str, supersedes: int | None
) -> None:
    columns = {
        "key": key,
        "presentation_id": presentation_id,
        "winner": winner,
        "strength": vote.strength,
        "reason": vote.reason,
        "tags": json.dumps(vote.tags, ensure_ascii=False),
        "p_first_response": vote.p_first_response,
        "seconds": vote.seconds,
        "raw": vote.raw,
        "supersedes": supersedes,
    }
    places = ", ".join(f":{name}" for name in columns)
    db.execute(f"INSERT INTO judgements ({', '.join(columns)}) VALUES ({places})", columns)
