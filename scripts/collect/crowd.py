"""Twenty people vote at one desk on 50,000 pairs at once: how long the next pair takes, and that no vote is lost.

usage: scripts/collect/crowd.py [--pairs 50000] [--people 20] [--votes 100] [--think 0.5] [--overlap 3]
           [--fraction 0.1] [--folder DIR]
       scripts/collect/crowd.py --votes 0 --think 0 --overlap 2 --fraction 0.05     # until every vote is in

--votes is for each person, 0 until all is done; --think is the pause of a person before each vote, in seconds. A share
--fraction of the pairs wants --overlap votes, of different people. --folder holds the database while it runs.

Prints one JSON object. Exits with 1 when an acknowledged vote is missing or there twice, or a pair has more or fewer
votes than wanted; with --votes 0 also when not exactly that share of the pairs has --overlap votes and every other one.
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
    parser.add_argument("--overlap", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    place = tempfile.TemporaryDirectory(dir=options.folder)
    with place as folder, Store(Path(folder) / "collect.db") as store:
        fill(store, options.pairs)
        with Desk(store, votes_per_pair=options.overlap, overlap_fraction=options.fraction, seed=0) as desk:
            report, keys = vote_together(desk, options.people, options.votes, options.think)
        found = faults(store.path, keys, finished=not options.votes)
        by_people = people_by_pair(store.path)
    report = {"pairs": options.pairs, **report, **found}
    exact = True
    if not options.votes:
        num_shared = round(options.fraction * options.pairs)
        wanted = Counter({options.overlap: num_shared}) + Counter({1: options.pairs - num_shared})
        exact = by_people == wanted
        report["pairs_by_number_of_people"] = by_people
    json.dump(report, sys.stdout)
    sys.stdout.write("\n")
    return 0 if exact and not any(found.values()) else 1


def fill(store: Store, num_pairs: int) -> None:
    """Store prompts with two answers each, as long as answers are."""
    store.add_prompts([Prompt(f"question {i} " * 20, f"p:{i}") for i in range(num_pairs)])
    for sample in (0, 1):
        store.add_responses(_answer(i, sample) for i in range(1, num_pairs + 1))
    store.add_pairs(store.unpaired((0, 0), (0, 1)))


def _answer(prompt_id: int, sample: int) -> Response:
    text = f"answer {sample} to {prompt_id}. " * 40
    return Response(prompt_id, 0, sample, "m", "d", 1.0, 1.0, prompt_id, "stop", text)


def vote_together(
    desk: Desk, num_people: int, num_votes: int, think_seconds: float
) -> tuple[dict[str, float], list[str]]:
    """Let everybody vote at once; return times, and the keys of the votes that were acknowledged."""
    acknowledged: list[str] = []
    seconds: list[float] = []

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
    report = {
        "people": num_people,
        "votes": len(acknowledged),
        "seconds": round(wall, 1),
        "votes_per_second": round(len(acknowledged) / wall, 1),
        "next_median_ms": round(1000 * statistics.median(ordered), 2),
        "next_95_percent_ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
    }
    return report, acknowledged


def faults(path: Path, acknowledged: Sequence[str], *, finished: bool) -> dict[str, int]:
    """Count votes lost, stored twice or unasked; pairs with more votes than wanted, or with fewer once all are in."""
    with sqlite3.connect(path) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise SystemExit("the database is damaged")
        stored = Counter(key for (key,) in db.execute("SELECT key FROM judgements"))
        over, short = db.execute(
            "SELECT SUM(n > wanted), SUM(n < wanted) FROM (" + _VOTES_AND_WANTED + ")"
        ).fetchone()
    return {
        "lost": len(set(acknowledged) - stored.keys()),
        "twice": sum(count > 1 for count in stored.values()) + len(stored.keys() - set(acknowledged)),
        "over": over,
        "short": short if finished else 0,
    }


def people_by_pair(path: Path) -> dict[int, int]:
    """Count the pairs by their number of votes in force; raise SystemExit where one person voted on a pair twice."""
    with sqlite3.connect(path) as db:
        rows = db.execute(
            """SELECT COUNT(v.id), COUNT(DISTINCT iif(v.id IS NULL, NULL, p.labeler)) FROM pairs
               LEFT JOIN presentations AS p ON p.pair_id = pairs.id
               LEFT JOIN votes AS v ON v.presentation_id = p.id GROUP BY pairs.id"""
        ).fetchall()
    if any(num_votes != num_people for num_votes, num_people in rows):
        raise SystemExit("somebody voted twice on one pair")
    return Counter(num_people for _, num_people in rows)


_VOTES_AND_WANTED = """SELECT wanted, (SELECT COUNT(DISTINCT p.labeler) FROM presentations AS p
                       JOIN votes AS v ON v.presentation_id = p.id WHERE p.pair_id = demand.pair_id) AS n FROM demand"""


if __name__ == "__main__":
    sys.exit(main())
