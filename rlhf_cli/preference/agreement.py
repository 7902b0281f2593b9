"""How far the people of a collection agree, how each of them votes, and how sure one can be of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

from rlhf_cli.preference.ballots import Vote

if TYPE_CHECKING:
    from torch import Tensor

_NOMINAL = {"1": 0, "2": 1, "tie": 2, "both_bad": 3}
_SIGNS = {"1": 1, "tie": 0, "2": -1}
_SAMPLES = 1000
_SAMPLES_OF_TWO = 200  # twenty people make 190 pairs of people


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval; None where it does not exist, or too few prompts tell how sure it is."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator: counts by verdict, the place they choose, their time, and how often others say the same."""

    num_votes: int
    ties: int
    both_bad: int
    skipped: int
    num_decided: int
    chose_first: Estimate
    agrees: float | None
    median_seconds: float


@dataclass(frozen=True, slots=True)
class Two:
    """Two people on the pairs that both judged."""

    one: str
    other: str
    num_pairs: int
    num_alike: int
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """What people agree on: verdicts on the `num_shared` pairs that several of them judged, skips left out.

    `fleiss` is undefined unless every such pair has the same number of votes. `ordinal` ranks response 1 better,
    tie, response 2 better, in seven steps where every decided vote has a strength; both bad is not on that scale.
    """

    num_shared: int
    percent: Estimate
    nominal: Estimate
    ordinal: Estimate
    fleiss: Estimate
    people: Mapping[str, Person]
    twos: tuple[Two, ...]

    def as_json(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Return the numbers that exist, under flat names."""
        named = {
            "agreement": self.percent,
            "krippendorff_nominal": self.nominal,
            "krippendorff_ordinal": self.ordinal,
            "fleiss_kappa": self.fleiss,
        }
        flat = {
            f"{name}{end}": value
            for name, estimate in named.items()
            for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
        }
        return {"shared_pairs": float(self.num_shared)} | {k: v for k, v in flat.items() if v is not None}


def agreement_of(
    votes: Sequence[Vote], *, seed: int = 0, prompt_of: Callable[[int], int] = lambda pair_id: pair_id
) -> Agreement:
    """Measure people's votes in force. `prompt_of` a pair says which pairs are resampled together."""
    by_pair: dict[int, dict[str, Vote]] = {}
    for vote in votes:
        by_pair.setdefault(vote.pair_id, {})[vote.labeler] = vote
    names = sorted({vote.labeler for vote in votes})
    shared = {
        pair_id: said
        for pair_id, said in by_pair.items()
        if sum(vote.winner in _NOMINAL for vote in said.values()) > 1
    }
    people = {name: _person([v for v in votes if v.labeler == name], by_pair) for name in names}
    if not shared:
        nothing = Estimate(None)
        return Agreement(0, nothing, nothing, nothing, nothing, people, ())
    return _Measure(shared, names, [prompt_of(pair_id) for pair_id in shared], seed).all(people)


def _person(mine: Sequence[Vote], by_pair: Mapping[int, Mapping[str, Vote]]) -> Person:
    from rlhf_cli.algo.metrics import wilson_interval

    count = {winner: sum(vote.winner == winner for vote in mine) for winner in ("1", "2", *_NOMINAL, "skip")}
    num_decided = count["1"] + count["2"]
    first = sum(vote.winner == str(vote.first) for vote in mine)
    chose_first = (
        Estimate(first / num_decided, *wilson_interval(first, num_decided)) if num_decided else Estimate(None)
    )
    alike = [
        vote.winner == theirs.winner
        for vote in mine
        for theirs in by_pair[vote.pair_id].values()
        if theirs is not vote and vote.winner in _NOMINAL and theirs.winner in _NOMINAL
    ]
    return Person(
        num_votes=len(mine),
        ties=count["tie"],
        both_bad=count["both_bad"],
        skipped=count["skip"],
        num_decided=num_decided,
        chose_first=chose_first,
        agrees=sum(alike) / len(alike) if alike else None,
        median_seconds=median(vote.seconds for vote in mine),
    )


class _Measure:
    """Ratings of the shared pairs as tensors, and the coefficients on them."""

    def __init__(
        self,
        shared: Mapping[int, Mapping[str, Vote]],
        names: Sequence[str],
        prompts: Sequence[int],
        seed: int,
    ) -> None:
        import torch

        rows = [[said.get(name) for name in names] for said in shared.values()]
        decided = [v for row in rows for v in row if v is not None and v.winner in ("1", "2")]
        strong = all(vote.strength for vote in decided)
        self._names = names
        self._num_steps = 7 if strong else 3
        self._nominal = torch.tensor([[_NOMINAL.get(v.winner, -1) if v else -1 for v in row] for row in rows])
        self._ordinal = torch.tensor([[_step(v, strong=strong) for v in row] for row in rows])
        self._prompts = torch.tensor(prompts)
        self._seed = seed

    def all(self, people: Mapping[str, Person]) -> Agreement:
        from rlhf_cli.algo import agreement as algo

        num_categories = len(_NOMINAL)
        return Agreement(
            num_shared=len(self._nominal),
            percent=self._estimate(
                algo.percent_agreement, algo.pair_counts(self._nominal, num_categories), _SAMPLES
            ),
            nominal=self._estimate(
                lambda matrix: algo.krippendorff_alpha(matrix, ordinal=False),
                algo.coincidences(self._nominal, num_categories),
                _SAMPLES,
            ),
            ordinal=self._estimate(
                lambda matrix: algo.krippendorff_alpha(matrix, ordinal=True),
                algo.coincidences(self._ordinal, self._num_steps),
                _SAMPLES,
            ),
            fleiss=self._fleiss(num_categories),
            people=people,
            twos=tuple(filter(None, (self._two(*pair) for pair in combinations(range(len(self._names)), 2)))),
        )

    def _fleiss(self, num_categories: int) -> Estimate:
        from rlhf_cli.algo.agreement import fleiss_kappa, fleiss_parts

        num_raters = {int((row >= 0).sum()) for row in self._nominal}
        if len(num_raters) > 1:
            return Estimate(None)
        return self._estimate(fleiss_kappa, fleiss_parts(self._nominal, num_categories), _SAMPLES)

    def _two(self, one: int, other: int) -> Two | None:
        from rlhf_cli.algo.agreement import cohen_kappa, confusion

        table = confusion(self._nominal[:, one], self._nominal[:, other], len(_NOMINAL))
        total = table.sum(0)
        if not total.sum():
            return None
        kappa = self._estimate(cohen_kappa, table, _SAMPLES_OF_TWO)
        num_alike = int(total.diagonal().sum())
        return Two(self._names[one], self._names[other], int(total.sum()), num_alike, kappa)

    def _estimate(
        self, statistic: "Callable[[Tensor], float | None]", parts: "Tensor", num_samples: int
    ) -> Estimate:
        from rlhf_cli.algo.agreement import bootstrap_interval

        value = statistic(parts.sum(0))
        if value is None:
            return Estimate(None)
        interval = bootstrap_interval(
            statistic, parts, self._prompts, seed=self._seed, num_samples=num_samples
        )
        return Estimate(value, *(interval or (None, None)))


def _step(vote: Vote | None, *, strong: bool) -> int:
    """Return the place of a vote on the scale from response 2 to response 1, -1 where it has none."""
    if vote is None or vote.winner not in _SIGNS:
        return -1
    steps = vote.strength if strong else 1
    return (3 if strong else 1) + _SIGNS[vote.winner] * (steps if vote.winner != "tie" else 0)


def in_sentences(agreement: Agreement) -> list[str]:
    """Say it for people: agreement beyond chance, every two, and whose votes depend on the place."""
    sentences = []
    if agreement.num_shared:
        percent = agreement.percent
        between = f", 95% interval {percent.low:.0%} to {percent.high:.0%}" if percent.low is not None else ""
        sentences += [
            f"{agreement.num_shared} pairs were judged by several people; two of them say the same "
            f"{percent.value:.0%} of the time{between}.",
            f"Beyond chance (0 is chance, 1 is perfect): Krippendorff's alpha {agreement.nominal} for the verdict, "
            f"{agreement.ordinal} along the scale; Fleiss' kappa {agreement.fleiss}.",
        ]
    sentences += [
        f"{two.one} and {two.other} agree on {two.num_alike} of {two.num_pairs} pairs "
        f"({two.num_alike / two.num_pairs:.0%}), Cohen's kappa {two.kappa}."
        for two in agreement.twos
    ]
    for name, person in agreement.people.items():
        low, high = person.chose_first.low, person.chose_first.high
        if low is not None and high is not None and not low <= 0.5 <= high:
            place = "first" if low > 0.5 else "second"
            sentences.append(
                f"{name} prefers what stands {place} (first in {person.chose_first.value:.0%} of "
                f"{person.num_decided} votes, 95% interval {low:.0%} to {high:.0%})."
            )
    return sentences
