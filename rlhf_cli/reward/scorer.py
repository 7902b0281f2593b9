"""What a scorer is, and the weighted sum of several."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError
from rlhf_cli.run.ranks import Ranks


class Scorer(Protocol):
    """Says how good answers are, higher is better; `name` heads its column in the metrics."""

    name: str

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, in order."""
        ...


class ScriptedScorer:
    """A scorer that looks the answer's text up; texts it does not know score `default`."""

    def __init__(self, scores: Mapping[str, float], *, default: float = 0.0, name: str = "scripted") -> None:
        self.name = name
        self.scores = scores
        self.default = default

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the scripted scores."""
        return [self.scores.get(episode.completion_text, self.default) for episode in episodes]


class LedScorer:
    """A scorer that only rank 0 asks: rules and servers, which need no model of this run."""

    def __init__(self, scorer: Scorer, ranks: Ranks) -> None:
        self.name = scorer.name
        self.scorer = scorer
        self.ranks = ranks

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return rank 0's scores, together."""
        return self.ranks.lead(lambda: self.scorer.score(episodes))


def combine(
    scorers: Sequence[tuple[Scorer, float]], episodes: Sequence[Episode]
) -> tuple[list[float], dict[str, list[float]]]:
    """Return the weighted sums of (scorer, weight) pairs, and each scorer's own scores by name.

    The second scorer of a name becomes `name_2`. Raises DataError when one returns too few or too many scores.
    """
    totals = [0.0] * len(episodes)
    by_name: dict[str, list[float]] = {}
    seen: Counter[str] = Counter()
    for scorer, weight in scorers:
        scores = scorer.score(episodes)
        if len(scores) != len(episodes):
            raise DataError(f"{scorer.name} returned {len(scores)} scores for {len(episodes)} answers")
        totals = [total + weight * score for total, score in zip(totals, scores, strict=True)]
        seen[scorer.name] += 1
        by_name[scorer.name if seen[scorer.name] == 1 else f"{scorer.name}_{seen[scorer.name]}"] = scores
    return totals, by_name
