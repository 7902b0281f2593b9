"""The store of a collection: prompts, sampled responses, pairs, who judged them, every judgement.

Judgements name responses 1 and 2 of the pair, never a place on the screen. They are only added: an undo is a
row that supersedes another. A method that writes returns after the commit is on disk.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal, Self

from rlhf_cli.preference.ballots import (
    WINNERS,
    LabelerKind,
    Vote,
    Winner,
    append,
    present,
    register,
    withdraw,
)
from rlhf_cli.preference.database import connect, refusing, writing
from rlhf_cli.records import Message, Prompt, Text

__all__ = ["WINNERS", "LabelerKind", "Pair", "Response", "Store", "Vote", "Winner"]


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled answer to a prompt; `text` is the answer alone, without prompt and closing EOS.

    `max_new_tokens` is None where it was not recorded.
    """

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
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the row `prompt_id` of the collection; `extra` holds its other columns."""

    id: int
    prompt_id: int
    prompt: Text
    extra: Mapping[str, object]
    responses: tuple[Response, Response]

    def shown(self, first: int) -> tuple[Response, Response]:
        """Return the responses in the order they are shown, response `first` (1 or 2) first."""
        one, two = self.responses
        return (two, one) if first == 2 else (one, two)


def text_to_json(text: Text) -> str | list[dict[str, str]]:
    """Return `text` as JSON values: a string, or a list of messages."""
    return text if isinstance(text, str) else [{"role": m.role, "content": m.content} for m in text]


def text_from_json(value: str | list[dict[str, str]]) -> Text:
    """Invert `text_to_json`."""
    return value if isinstance(value, str) else tuple(Message(m["role"], m["content"]) for m in value)


class Store:
    """One open `collect.db`. Parts that keep tables of their own in it use `transaction` and `rows`."""

    def __init__(self, path: Path, *, any_thread: bool = False) -> None:
        """Open, create or migrate the file. Raises DataError for a file that is no store.

        With `any_thread`, the threads that share it take turns by a lock of their own.
        """
        self.path = path
        self._db = connect(path, any_thread=any_thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Do everything inside or nothing; committed and on disk when the block ends."""
        return writing(self._db, self.path)

    def rows(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """Return what a query finds."""
        with refusing(self.path):
            return self._db.execute(query, values).fetchall()

    def note(self, key: str, value: str) -> None:
        """Remember something about the collection as a whole."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """Return what `note` remembered."""
        found = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0]["value"] if found else None

    def add_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Store the prompts of the collection, all or none, under the ids 1, 2, ..."""
        rows = [
            (i, json.dumps(text_to_json(p.prompt)), p.origin, _extra(p)) for i, p in enumerate(prompts, 1)
        ]
        with self.transaction() as db:
            db.executemany("INSERT INTO prompts VALUES (?, ?, ?, ?)", rows)

    def prompts(self) -> list[Prompt]:
        """Return the prompts in the order of their ids."""
        rows = self.rows("SELECT * FROM prompts ORDER BY id")
        contents = [text_from_json(json.loads(row["content"])) for row in rows]
        return [Prompt(c, r["origin"], json.loads(r["extra"])) for c, r in zip(contents, rows, strict=True)]

    def unanswered(self, candidate: int, sample: int) -> list[int]:
        """Return the ids of the prompts that lack this sample of this candidate."""
        query = """SELECT id FROM prompts WHERE id NOT IN
                   (SELECT prompt_id FROM responses WHERE candidate = ? AND sample = ?) ORDER BY id"""
        return [row["id"] for row in self.rows(query, (candidate, sample))]

    def digests(self, candidate: int) -> set[str]:
        """Return the digests of the weights that answered as this candidate so far."""
        query = "SELECT DISTINCT model_digest FROM responses WHERE candidate = ?"
        return {row["model_digest"] for row in self.rows(query, (candidate,))}

    def add_responses(self, responses: Iterable[Response]) -> None:
        """Store sampled answers, all or none."""
        columns = Response.__slots__
        insert = f"INSERT INTO responses ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with self.transaction() as db:
            db.executemany(insert, map(astuple, responses))

    def unpaired(self, one: tuple[int, int], two: tuple[int, int]) -> list[tuple[int, int, int, bool]]:
        """Return what there is to pair: prompt id, two response ids, whether the texts are identical.

        `one` and `two` are (candidate, sample). Texts that differ in white space only are identical.
        """
        query = """SELECT a.prompt_id, a.id AS one, b.id AS two, a.text AS text_1, b.text AS text_2
                   FROM responses AS a JOIN responses AS b ON a.prompt_id = b.prompt_id
                   WHERE (a.candidate, a.sample, b.candidate, b.sample) = (?, ?, ?, ?)
                   AND a.id NOT IN (SELECT response_1 FROM pairs) ORDER BY a.prompt_id"""
        rows = self.rows(query, (*one, *two))
        return [
            (r["prompt_id"], r["one"], r["two"], r["text_1"].split() == r["text_2"].split()) for r in rows
        ]

    def add_pairs(self, pairs: Iterable[tuple[int, int, int, bool]]) -> None:
        """Store pairs as `unpaired` gives them, all or none."""
        insert = "INSERT INTO pairs (prompt_id, response_1, response_2, identical) VALUES (?, ?, ?, ?)"
        with self.transaction() as db:
            db.executemany(insert, pairs)

    def pair(self, pair_id: int) -> Pair:
        """Return one pair with its texts."""
        (row,) = self.rows(f"{_PAIRS} WHERE pairs.id = ?", (pair_id,))
        return _pair(row)

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs with their texts, in the order of their ids."""
        with refusing(self.path):
            yield from map(_pair, self._db.execute(f"{_PAIRS} ORDER BY pairs.id"))

    def prompts_of_pairs(self) -> dict[int, int]:
        """Map the id of each pair to that of its prompt."""
        return {row["id"]: row["prompt_id"] for row in self.rows("SELECT id, prompt_id FROM pairs")}

    def add_labeler(self, name: str, kind: LabelerKind, detail: Mapping[str, object]) -> None:
        """Note who judges under `name`, and what else decides the votes: a model, the hash of its prompt.

        Raises RunConflictError when votes of somebody else are stored under this name.
        """
        with self.transaction() as db:
            register(db, name, kind, detail)

    def labelers(self) -> dict[str, tuple[LabelerKind, dict[str, object]]]:
        """Return everybody who judges: kind and detail by name."""
        rows = self.rows("SELECT name, kind, detail FROM labelers ORDER BY name")
        return {row["name"]: (row["kind"], json.loads(row["detail"])) for row in rows}

    def undecided(self, labeler: str, *, errors: bool = False) -> list[int]:
        """Return the ids of the pairs to ask this labeler about: not identical, no judgement in force.

        With `errors`, those count as undecided at which it failed.
        """
        query = """SELECT id FROM pairs WHERE NOT identical AND id NOT IN
                   (SELECT pair_id FROM presentations AS p JOIN votes AS v ON v.presentation_id = p.id
                    WHERE p.labeler = ? AND NOT (? AND winner = 'error')) ORDER BY id"""
        return [row["id"] for row in self.rows(query, (labeler, errors))]

    def vote(self, vote: Vote, *, key: str) -> None:
        """Store a judgement of a labeler that `add_labeler` knows. Sending one `key` again changes nothing.

        Raises RunConflictError when this labeler has decided the pair, or the key belongs to another judgement.
        """
        with self.transaction() as db:
            append(db, present(db, vote.pair_id, vote.labeler, vote.first), vote, key=key)

    def undo(self, labeler: str, *, key: str) -> int | None:
        """Withdraw this labeler's newest judgement in force; return the pair's id, or None when there is none."""
        with self.transaction() as db:
            presentation = withdraw(db, labeler, key=key)
            query = "SELECT pair_id FROM presentations WHERE id = ?"
            return None if presentation is None else int(db.execute(query, (presentation,)).fetchone()[0])

    def votes(self, *, surplus: bool = False) -> list[Vote]:
        """Return the judgements in force, by pair and time; with `surplus`, only those beyond the number wanted."""
        query = "SELECT * FROM ballots WHERE surplus = ? ORDER BY pair_id, id"
        names = Vote.__slots__
        rows = ({name: row[name] for name in names} for row in self.rows(query, (surplus,)))
        return [Vote(**{**row, "tags": tuple(json.loads(row["tags"]))}) for row in rows]

    def num_votes(self, labeler: str | None = None) -> int:
        """Count the judgements in force, of everybody or of one labeler."""
        counted = "SELECT coalesce(SUM(num_votes), 0) FROM tallies WHERE labeler = coalesce(?, labeler)"
        return int(self.rows(counted, (labeler,))[0][0])

    def num_responses(self, finish_reason: str | None = None) -> int:
        """Count the answers, or those that ended for one reason, "stop" or "length"."""
        counted = "SELECT COUNT(*) FROM responses WHERE finish_reason = coalesce(?, finish_reason)"
        return int(self.rows(counted, (finish_reason,))[0][0])

    def num_pairs(self, *, identical: bool) -> int:
        return int(self.rows("SELECT COUNT(*) FROM pairs WHERE identical = ?", (identical,))[0][0])


_FIELDS = Response.__slots__
_PAIRS = f"""SELECT pairs.id, pairs.prompt_id, content, extra,
             {", ".join(f"{side}.{name} AS {side}_{name}" for side in ("one", "two") for name in _FIELDS)}
             FROM pairs JOIN prompts ON prompts.id = pairs.prompt_id
             JOIN responses AS one ON one.id = response_1 JOIN responses AS two ON two.id = response_2"""


def _pair(row: sqlite3.Row) -> Pair:
    one, two = (Response(**{name: row[f"{side}_{name}"] for name in _FIELDS}) for side in ("one", "two"))
    prompt = text_from_json(json.loads(row["content"]))
    return Pair(row["id"], row["prompt_id"], prompt, json.loads(row["extra"]), (one, two))


def _extra(prompt: Prompt) -> str:
    return json.dumps(dict(prompt.extra), default=str)
