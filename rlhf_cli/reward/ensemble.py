"""What several reward models agree on: the mean of their scores less their spread."""

from collections.abc import Sequence
from statistics import fmean, pstdev

from rlhf_cli.data.episode import Episode
from rlhf_cli.reward.scorer import Scorer


class EnsembleScorer:
    """mean - std_weight * std over the members' scores of an answer, std with divisor K for K members.

    An answer that only one member loves earns little: over-optimisation finds just such answers. Coste et al. 2023
    (arXiv 2310.02743), whose uncertainty-weighted objective takes off the variance instead.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Scorer], *, std_weight: float) -> None:
        self.members = members
        self.std_weight = std_weight

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, in order."""
        columns = [member.score(episodes) for member in self.members]
        return [fmean(row) - self.std_weight * pstdev(row) for row in zip(*columns, strict=True)]
