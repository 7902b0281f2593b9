"""The store of a collection: prompts, sampled responses, pairs, their order on the screen, every judgement.

Judgements name responses 1 and 2 of the pair, never a place on the screen. They are only added: an undo is a
row that supersedes another. A method that writes returns after the commit is on disk.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from rlhf_cli.errors import RunConflictError
from rlhf_cli.preference.database import connect, refusing, writing
from rlhf_cli.records import Message, Prompt, Text

Winner = Literal["1", "2", "tie", "both_bad", "skip"]
WINNERS: tuple[Winner, ...] = get_args(Winner)


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled answer to a prompt; `text` is the answer alone, without prompt and closing EOS."""

    prompt_id: int
    candidate: int
    sample: int
    model: str
    model_digest: str
    temperature: float
    top_p: float
    seed: int
    finish_reason: Literal["stop", "length"]
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt; `first` says which of them, 1 or 2, is shown first."""

    id: int
    prompt: Text
    extra: Mapping[str, object]
    responses: tuple[Response, Response]
    first: int

    @property
    def shown(self) -> tuple[Response, Response]:
        """Return the responses in the order they are shown."""
        one, two = self.responses
        return (one, two) if self.first == 1 else (two, one)


@dataclass(frozen=True, slots=True)
class Vote:
    """A judgement on one pair: response "1" or "2" is better, or why neither is."""

    pair_id: int
    winner: Winner
    labeler: str
    reason: str = ""
    seconds: float = 0.0


_VOTES = """SELECT pair_id, winner, labeler, reason, seconds FROM votes
            JOIN presentations AS p ON p.id = presentation_id"""


def text_to_json(text: Text) -> str | list[dict[str, str]]:
    """Return `text` as JSON values: a string, or a list of messages."""
    return text if isinstance(text, str) else [{"role": m.role, "content": m.content} for m in text]


def text_from_json(value: str | list[dict[str, str]]) -> Text:
    """Invert `text_to_json`."""
    return value if isinstance(value, str) else tuple(Message(m["role"], m["content"]) for m in value)


class Store:
    """One open `collect.db`."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises DataError for a file that is no store of this version."""
        self.path = path
        self._db = connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Store the prompts of the collection, all or none, under the ids 1, 2, ..."""
        rows = [
            (i, json.dumps(text_to_json(p.prompt)), p.origin, _extra(p)) for i, p in enumerate(prompts, 1)
        ]
        with writing(self._db, self.path) as db:
            db.executemany("INSERT INTO prompts VALUES (?, ?, ?, ?)", rows)

    def prompts(self) -> list[Prompt]:
        """Return the prompts in the order of their ids."""
        rows = self._rows("SELECT * FROM prompts ORDER BY id")
        contents = [text_from_json(json.loads(row["content"])) for row in rows]
        return [Prompt(c, r["origin"], json.loads(r["extra"])) for c, r in zip(contents, rows, strict=True)]

    def unanswered(self, candidate: int, sample: int) -> list[int]:
        """Return the ids of the prompts that lack this sample of this candidate."""
        query = """SELECT id FROM prompts WHERE id NOT IN
                   (SELECT prompt_id FROM responses WHERE candidate = ? AND sample = ?) ORDER BY id"""
        return [row["id"] for row in self._rows(query, (candidate, sample))]

    def digests(self, candidate: int) -> set[str]:
        """Return the digests of the weights that answered as this candidate so far."""
        query = "SELECT DISTINCT model_digest FROM responses WHERE candidate = ?"
        return {row["model_digest"] for row in self._rows(query, (candidate,))}

    def add_responses(self, responses: Iterable[Response]) -> None:
        """Store sampled answers, all or none."""
        columns = Response.__slots__
        insert = f"INSERT INTO responses ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with writing(self._db, self.path) as db:
            db.executemany(insert, map(astuple, responses))

    def unpaired(self, one: tuple[int, int], two: tuple[int, int]) -> list[tuple[int, int, int, bool]]:
        """Return what there is to pair: prompt id, two response ids, whether the texts are identical.

        `one` and `two` are (candidate, sample). Texts that differ in white space only are identical.
        """
        query = """SELECT a.prompt_id, a.id AS one, b.id AS two, a.text AS text_1, b.text AS text_2
                   FROM responses AS a JOIN responses AS b ON a.prompt_id = b.prompt_id
                   WHERE (a.candidate, a.sample, b.candidate, b.sample) = (?, ?, ?, ?)
                   AND a.id NOT IN (SELECT response_1 FROM pairs) ORDER BY a.prompt_id"""
        rows = self._rows(query, (*one, *two))
        return [
            (r["prompt_id"], r["one"], r["two"], r["text_1"].split() == r["text_2"].split()) for r in rows
        ]

    def add_pairs(self, pairs: Iterable[tuple[int, int, int, bool]], first: Iterable[int]) -> None:
        """Store pairs as `unpaired` gives them, each with the response, 1 or 2, that is shown first."""
        insert = "INSERT INTO pairs (prompt_id, response_1, response_2, identical) VALUES (?, ?, ?, ?)"
        with writing(self._db, self.path) as db:
            for pair, shown_first in zip(pairs, first, strict=True):
                pair_id = db.execute(insert, pair).lastrowid
                db.execute("INSERT INTO presentations (pair_id, first) VALUES (?, ?)", (pair_id, shown_first))

    def undecided(self) -> list[int]:
        """Return the ids of the pairs to ask about: not identical, no judgement in force."""
        query = """SELECT p.id FROM pairs AS p JOIN presentations AS shown ON shown.pair_id = p.id
                   WHERE NOT p.identical AND shown.id NOT IN (SELECT presentation_id FROM votes)
                   ORDER BY p.id"""
        return [row["id"] for row in self._rows(query)]

    def pair(self, pair_id: int) -> Pair:
        """Return one pair with its texts."""
        (row,) = self._rows(
            """SELECT p.*, content, extra, first FROM pairs AS p JOIN prompts ON prompts.id = p.prompt_id
               JOIN presentations ON pair_id = p.id WHERE p.id = ?""",
            (pair_id,),
        )
        one, two = (self._response(row[column]) for column in ("response_1", "response_2"))
        prompt = text_from_json(json.loads(row["content"]))
        return Pair(pair_id, prompt, json.loads(row["extra"]), (one, two), row["first"])

    def vote(self, vote: Vote, *, key: str) -> None:
        """Store a judgement. Sending one `key` again changes nothing.

        Raises RunConflictError when the pair is decided already, or the key belongs to another judgement.
        """
        sent = """SELECT pair_id, winner, labeler FROM judgements JOIN presentations AS p
                  ON p.id = presentation_id WHERE key = ?"""
        with writing(self._db, self.path) as db:
            known = db.execute(sent, (key,)).fetchone()
            if known is None:
                self._append(db, key, vote.winner, vote)
            elif tuple(known) != (vote.pair_id, vote.winner, vote.labeler):
                raise RunConflictError("this key belongs to another judgement", where=str(self.path))

    def undo(self, labeler: str, *, key: str) -> int | None:
        """Withdraw this labeler's last judgement in force; return the pair's id, or None when there is none."""
        with writing(self._db, self.path) as db:
            row = db.execute(
                f"{_VOTES} WHERE labeler = ? ORDER BY votes.id DESC LIMIT 1", (labeler,)
            ).fetchone()
            if row is None:
                return None
            self._append(db, key, "undone", Vote(**row))
            return int(row["pair_id"])

    def votes(self) -> list[Vote]:
        """Return the judgements in force, in the order of the pairs."""
        return [Vote(**row) for row in self._rows(f"{_VOTES} ORDER BY pair_id")]

    def num_votes(self) -> int:
        return int(self._rows("SELECT COUNT(*) FROM votes")[0][0])

    def num_responses(self, finish_reason: str | None = None) -> int:
        """Count the answers, or those that ended for one reason, "stop" or "length"."""
        counted = "SELECT COUNT(*) FROM responses WHERE finish_reason = coalesce(?, finish_reason)"
        return int(self._rows(counted, (finish_reason,))[0][0])

    def num_pairs(self, *, identical: bool) -> int:
        return int(self._rows("SELECT COUNT(*) FROM pairs WHERE identical = ?", (identical,))[0][0])

    def _append(self, db: sqlite3.Connection, key: str, winner: str, vote: Vote) -> None:
        """Add one judgement at the end of its pair's chain."""
        (presentation,) = db.execute(
            "SELECT id FROM presentations WHERE pair_id = ?", (vote.pair_id,)
        ).fetchone()
        chain = "SELECT id, winner FROM judgements WHERE presentation_id = ? ORDER BY id DESC LIMIT 1"
        last = db.execute(chain, (presentation,)).fetchone()
        if winner != "undone" and last and last["winner"] != "undone":
            raise RunConflictError(
                f"pair {vote.pair_id} is decided already", where=str(self.path), fix="undo it first"
            )
        columns = "key, presentation_id, winner, labeler, reason, seconds, supersedes"
        insert = f"INSERT INTO judgements ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        supersedes = last["id"] if last else None
        db.execute(insert, (key, presentation, winner, vote.labeler, vote.reason, vote.seconds, supersedes))

    def _response(self, response_id: int) -> Response:
        (row,) = self._rows("SELECT * FROM responses WHERE id = ?", (response_id,))
        return Response(**{name: row[name] for name in Response.__slots__})

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with refusing(self.path):
            return self._db.execute(query, values).fetchall()


def _extra(prompt: Prompt) -> str:
    return json.dumps(dict(prompt.extra), default=str)
