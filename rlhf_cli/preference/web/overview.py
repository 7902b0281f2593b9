"""What the owner of a collection sees of the votes: choices, time, agreement. Nothing about the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

from rlhf_cli.preference.ballots import Vote


@dataclass(frozen=True, slots=True)
class Overview:
    """A table with one row per annotator under `titles`, and sentences below it."""

    titles: tuple[str, ...] = ()
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()


def overview_of(votes: Sequence[Vote]) -> Overview:
    """Sum up people's votes: choices, position, time, agreement of every two who judged the same pairs."""
    by_person: dict[str, dict[int, Vote]] = {}
    for vote in votes:
        by_person.setdefault(vote.labeler, {})[vote.pair_id] = vote
    rows = {name: _row(list(mine.values())) for name, mine in sorted(by_person.items())}
    sentences = [_agreement(*two, by_person) for two in combinations(sorted(by_person), 2)]
    return Overview(
        ("A chosen", "Tie", "Both bad", "Skip", "Median time"), rows, tuple(filter(None, sentences))
    )


def _row(votes: Sequence[Vote]) -> tuple[str, ...]:
    decided = [vote for vote in votes if vote.winner in ("1", "2")]
    chose_first = sum(vote.winner == str(vote.first) for vote in decided)
    counts = [str(sum(vote.winner == kind for vote in votes)) for kind in ("tie", "both_bad", "skip")]
    share = f"{chose_first / len(decided):.0%} of {len(decided)}" if decided else "–"
    return (share, *counts, f"{median(vote.seconds for vote in votes):.0f} s")


def _agreement(one: str, two: str, by_person: Mapping[str, Mapping[int, Vote]]) -> str:
    """Say how often two people said the same of the pairs that neither skipped; "" without such pairs."""
    mine, theirs = by_person[one], by_person[two]
    both = [
        (mine[pair].winner, theirs[pair].winner)
        for pair in mine.keys() & theirs.keys()
        if "skip" not in (mine[pair].winner, theirs[pair].winner)
    ]
    if not both:
        return ""
    same = sum(a == b for a, b in both)
    return f"{one} and {two} agree on {same} of {len(both)} pairs ({same / len(both):.0%})."
