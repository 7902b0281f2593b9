"""A judge's votes on the pairs of a store: each committed as it is reached, errors kept apart from preferences."""

import json
from collections.abc import Iterator
from uuid import uuid4

from rlhf_cli.preference.judge.judging import Judge
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.verdict import Judgement
from rlhf_cli.preference.store import Pair, Store, Vote

_ASKED_BOTH_WAYS = 0


def judge_votes(store: Store, judge: Judge, labeler: str, *, errors: bool) -> Iterator[int]:
    """Yield the number of this labeler's votes in the store each time there is one more.

    Asks about every pair the labeler has not judged; with `errors`, again about those where it failed. `labeler` is
    a name that the store knows. What was yielded is on disk. Raises what the judge's chat raises.
    """
    past_errors = _past_errors(store, labeler)
    waiting = store.undecided(labeler, errors=errors)
    done = store.num_votes(labeler) - sum(pair_id in past_errors for pair_id in waiting)
    cases = (_case(store.pair(pair_id), past_errors.get(pair_id, 0)) for pair_id in waiting)
    for case, judgement in judge.judge(cases):
        store.vote(vote_of(case, judgement, labeler), key=uuid4().hex)
        done += 1
        yield done


def _past_errors(store: Store, labeler: str) -> dict[int, int]:
    query = """SELECT pair_id, COUNT(*) AS times FROM judgements AS j JOIN presentations AS p
               ON p.id = j.presentation_id WHERE p.labeler = ? AND winner = 'error' GROUP BY pair_id"""
    return {row["pair_id"]: row["times"] for row in store.rows(query, (labeler,))}


def _case(pair: Pair, past_errors: int) -> Case:
    one, two = pair.responses
    cut = (one.finish_reason == "length", two.finish_reason == "length")
    return Case(pair.id, pair.prompt, (one.text, two.text), cut, past_errors=past_errors)


def vote_of(case: Case, judgement: Judgement, labeler: str) -> Vote:
    """Return a judgement as a vote; `raw` tells each order's verdict, or why there is none."""
    orders = [
        {"first": first, "side": reading.side, "p_first": round(0.5 + reading.lean, 6)}
        for first, reading in judgement.readings
    ]
    return Vote(
        case.id,
        judgement.winner,
        labeler,
        seconds=judgement.seconds,
        p_first_response=judgement.p_first_response,
        raw=json.dumps({"orders": orders, "why": judgement.reason}, ensure_ascii=False),
        first=judgement.readings[0][0] if len(orders) == 1 else _ASKED_BOTH_WAYS,
    )
