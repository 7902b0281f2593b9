"""Twenty people vote at one desk on 50,000 pairs at once: how long the next pair takes, and that no vote is lost.

usage: scripts/collect/crowd.py [--pairs 50000] [--people 20] [--votes 100] [--think 0.5]

--votes is for each person, 0 until all is done; --think is the pause of a person before each vote, in seconds.

Prints one JSON object. Exits with 1 when an acknowledged vote is missing or there twice, or a pair has more or fewer
votes than wanted.
"""

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.labeler import Choice, Verdict
from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Prompt

_CHOICES: Sequence[Choice] = ("first", "second", "tie", "both_bad", "skip")


def main() -> int:
    """Run the crowd and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--votes", type=int, default=100)
    parser.add_argument("--think", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "collect.db") as store:
        fill(store, options.pairs)
        report = vote_together(store, options.people, options.votes, options.think)
    json.dump(report, sys.stdout)
    sys.stdout.write("\n")
    return 0 if report["lost"] == report["twice"] == report["over"] == report["short"] == 0 else 1


def fill(store: Store, num_pairs: int) -> None:
    """Store prompts with two answers each, as long as answers are."""
    store.add_prompts([Prompt(f"question {i} " * 20, f"p:{i}") for i in range(num_pairs)])
    for sample in (0, 1):
        store.add_responses(_answer(i, sample) for i in range(1, num_pairs + 1))
    store.add_pairs(store.unpaired((0, 0), (0, 1)))


def _answer(prompt_id: int, sample: int) -> Response:
    text = f"answer {sample} to {prompt_id}. " * 40
    return Response(prompt_id, 0, sample, "m", "d", 1.0, 1.0, prompt_id, "stop", text)


def vote_together(store: Store, num_people: int, num_votes: int, think_seconds: float) -> dict[str, float]:
    """Let everybody vote at once, a tenth of the pairs wanted three times; return times and what went wrong."""
    acknowledged: list[str] = []
    seconds: list[float] = []
    with Desk(store, votes_per_pair=3, overlap_fraction=0.1, seed=0) as desk:

        def vote(name: str) -> None:
            for number in range(num_votes or sys.maxsize):
                started = time.perf_counter()
                question = desk.next(name)
                seconds.append(time.perf_counter() - started)
                if question is None:
                    return
                time.sleep(think_seconds)
                key = uuid4().hex
                verdict = Verdict(_CHOICES[number % 5], seconds=1.0)
                desk.vote(name, question.presentation_id, verdict, key=key)
                acknowledged.append(key)

        started = time.perf_counter()
        people = [threading.Thread(target=vote, args=(f"person {i}",)) for i in range(num_people)]
        for person in people:
            person.start()
        for person in people:
            person.join()
        wall = time.perf_counter() - started
    ordered = sorted(seconds)
    return {
        "pairs": store.num_pairs(identical=False),
        "people": num_people,
        "votes": len(acknowledged),
        "votes_per_second": round(len(acknowledged) / wall, 1),
        "next_median_ms": round(1000 * statistics.median(ordered), 2),
        "next_95_percent_ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
        **faults(store.path, acknowledged, finished=not num_votes),
    }


def faults(path: Path, acknowledged: Sequence[str], *, finished: bool) -> dict[str, int]:
    """Count votes lost and stored twice, and pairs with more votes than wanted, or fewer once all are in."""
    with sqlite3.connect(path) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise SystemExit("the database is damaged")
        stored = Counter(key for (key,) in db.execute("SELECT key FROM judgements"))
        over, short = db.execute(
            "SELECT SUM(n > wanted), SUM(n < wanted) FROM (" + _VOTES_AND_WANTED + ")"
        ).fetchone()
    return {
        "lost": len(set(acknowledged) - stored.keys()),
        "twice": sum(count > 1 for count in stored.values()) + len(stored) - len(set(acknowledged)),
        "over": over,
        "short": short if finished else 0,
    }


_VOTES_AND_WANTED = """SELECT wanted, (SELECT COUNT(DISTINCT p.labeler) FROM presentations AS p
                       JOIN votes AS v ON v.presentation_id = p.id WHERE p.pair_id = demand.pair_id) AS n FROM demand"""


if __name__ == "__main__":
    sys.exit(main())
