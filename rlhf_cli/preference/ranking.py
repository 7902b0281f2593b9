"""Several scored answers to each prompt: which of them make pairs, and the votes that the scores are.

Scores are those of a reward model under the Bradley-Terry model: P(1 is better) = sigmoid(score 1 - score 2).
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import Literal
from uuid import uuid4

from rlhf_cli.preference.store import Store, Vote
from rlhf_cli.run.chance import draw

Strategy = Literal["best_worst", "best_random", "all"]
NewPair = tuple[int, int, int, bool]

_SHOWN_NEITHER_WAY = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer; `score` is None while it has none."""

    id: int
    prompt_id: int
    text: str
    finished: bool
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Pairs as `Store.add_pairs` takes them, and how many answers or prompts came to nothing, by the reason."""

    pairs: list[NewPair]
    left_out: Mapping[str, int]
    margins: list[float] = field(default_factory=list)


def answers(store: Store, labeler: str) -> list[Answer]:
    """Return every answer of a store with the score this labeler gave it, by prompt."""
    query = """SELECT r.id, r.prompt_id, r.text, r.finish_reason = 'stop' AS finished, s.score FROM responses AS r
               LEFT JOIN scores AS s ON s.response_id = r.id AND s.labeler = ? ORDER BY r.prompt_id, r.id"""
    rows = store.rows(query, (labeler,))
    return [Answer(r["id"], r["prompt_id"], r["text"], bool(r["finished"]), r["score"]) for r in rows]


def keep_scores(store: Store, labeler: str, scores: Iterable[tuple[int, float]]) -> None:
    """Store the scores of answers by their ids, all or none."""
    with store.transaction() as db:
        insert = "INSERT INTO scores (response_id, labeler, score) VALUES (?, ?, ?)"
        db.executemany(insert, [(answer_id, labeler, score) for answer_id, score in scores])


def can_be_scored(answer: Answer) -> bool:
    """Say whether a reward model, which reads its score at the end of an answer, has one to read."""
    return answer.finished and bool(answer.text.strip())


def choose_pairs(found: Sequence[Answer], strategy: Strategy, *, min_margin: float, seed: int) -> Choice:
    """Choose pairs whose scores differ by more than 0 and at least `min_margin`.

    `found` is sorted by prompt. Of answers that differ in white space only, the first one counts. best_worst pairs
    the ends of the ranking, best_random the best with any other, all each with each.
    """
    pairs: list[NewPair] = []
    margins: list[float] = []
    left_out: Counter[str] = Counter()
    for prompt_id, group in groupby(found, lambda answer: answer.prompt_id):
        ranked = _ranked(list(group), left_out)
        told = [pair for pair in _pairs_of(ranked, strategy, seed) if _margin(pair) >= max(min_margin, 1e-12)]
        if not told:
            left_out["prompts_without_pair"] += 1
        for pair in told:
            one, two = sorted(answer.id for answer in pair)  # the place in a pair tells nothing of the rank
            pairs.append((prompt_id, one, two, False))
            margins.append(_margin(pair))
    return Choice(pairs, left_out, margins)


def _ranked(found: Sequence[Answer], left_out: Counter[str]) -> list[Answer]:
    """Return the answers that can be compared, best first."""
    different: dict[tuple[str, ...], Answer] = {}
    for answer in found:
        if not answer.text.strip():
            left_out["empty_answers"] += 1
        elif not answer.finished:
            left_out["cut_answers"] += 1
        elif answer.score is None:
            left_out["long_answers"] += 1
        elif different.setdefault(tuple(answer.text.split()), answer) is not answer:
            left_out["repeated_answers"] += 1
    return sorted(different.values(), key=lambda answer: (-_score(answer), answer.id))


def _pairs_of(ranked: Sequence[Answer], strategy: Strategy, seed: int) -> list[tuple[Answer, Answer]]:
    if len(ranked) < 2:
        return []
    best, *others = ranked
    match strategy:
        case "best_worst":
            return [(best, others[-1])]
        case "best_random":
            return [(best, others[draw(seed, "rival", best.prompt_id) % len(others)])]
        case "all":
            return list(combinations(ranked, 2))


def _score(answer: Answer) -> float:
    assert answer.score is not None
    return answer.score


def _margin(pair: tuple[Answer, Answer]) -> float:
    return _score(pair[0]) - _score(pair[1])


def votes_by_score(store: Store, labeler: str) -> Iterator[int]:
    """Yield the number of this labeler's votes each time there is one more; what was yielded is on disk."""
    query = """SELECT one.score AS one, two.score AS two FROM pairs
               JOIN scores AS one ON one.response_id = response_1 AND one.labeler = :labeler
               JOIN scores AS two ON two.response_id = response_2 AND two.labeler = :labeler WHERE pairs.id = :pair"""
    done = store.num_votes(labeler)
    for pair_id in store.undecided(labeler):
        (row,) = store.rows(query, {"labeler": labeler, "pair": pair_id})
        store.vote(vote_of(pair_id, (row["one"], row["two"]), labeler), key=uuid4().hex)
        done += 1
        yield done


def vote_of(pair_id: int, scores: tuple[float, float], labeler: str) -> Vote:
    """Return what two scores say of a pair."""
    difference = scores[0] - scores[1]
    winner: Literal["1", "2", "tie"] = "tie" if difference == 0 else "1" if difference > 0 else "2"
    p_first = 1 / (1 + math.exp(-difference)) if difference > -700 else 0.0
    raw = json.dumps({"scores": list(scores)})
    return Vote(pair_id, winner, labeler, p_first_response=p_first, raw=raw, first=_SHOWN_NEITHER_WAY)


def scores_of(store: Store) -> dict[int, tuple[float, float]]:
    """Return the scores of both responses by pair, for pairs that were chosen by their scores."""
    query = """SELECT pairs.id, one.score AS one, two.score AS two FROM pairs
               JOIN scores AS one ON one.response_id = response_1
               JOIN scores AS two ON two.response_id = response_2 AND two.labeler = one.labeler"""
    return {row["id"]: (row["one"], row["two"]) for row in store.rows(query)}
