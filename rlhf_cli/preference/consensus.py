"""What several votes on a pair come to: the majority, and how many were for each answer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rlhf_cli.preference.ballots import Vote, Winner

_P_FIRST = {"1": 1.0, "tie": 0.5, "2": 0.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The votes on one pair and what most of them say.

    `p_first_response` is P(response 1 is better): the mean of what the votes for 1, 2 or tie say, each by its own
    probability where it has one. It is None where no vote compares the answers.
    """

    pair_id: int
    winner: Winner
    p_first_response: float | None
    votes: tuple[Vote, ...]


def outcomes(votes: Iterable[Vote]) -> list[Outcome]:
    """Sum up votes that are sorted by pair."""
    return [_outcome(pair_id, tuple(group)) for pair_id, group in groupby(votes, lambda vote: vote.pair_id)]


def _outcome(pair_id: int, votes: tuple[Vote, ...]) -> Outcome:
    compared = [p for vote in votes if (p := _p_first(vote)) is not None]
    mean = sum(compared) / len(compared) if compared else None
    return Outcome(pair_id, majority([vote.winner for vote in votes]), mean, votes)


def majority(winners: Sequence[Winner]) -> Winner:
    """Return what more votes say than anything else, skips and errors aside; an even split is a tie."""
    said = Counter(winner for winner in winners if winner not in ("skip", "error"))
    if not said:
        return "skip" if "skip" in winners else "error"
    (top, most), *others = said.most_common()
    return "tie" if others and others[0][1] == most else top


def _p_first(vote: Vote) -> float | None:
    if vote.winner not in _P_FIRST:
        return None
    return _P_FIRST[vote.winner] if vote.p_first_response is None else vote.p_first_response
