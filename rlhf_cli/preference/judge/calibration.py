"""A judge held against people: how far it agrees with them, what it is swayed by, and whether it may stand in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rlhf_cli.algo.agreement import bootstrap_interval, cohen_kappa, confusion
from rlhf_cli.preference.ballots import Winner
from rlhf_cli.preference.consensus import majority
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.verdict import Judgement

Interval = tuple[float, float] | None

_CATEGORIES = {"1": 0, "2": 1, "tie": 2}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A pair and what people said of it, "1", "2" or "tie"; pairs of one `group`, such as a prompt, go together."""

    case: Case
    people: tuple[Winner, ...]
    group: int

    @property
    def winner(self) -> Winner:
        """What most people say; an even split is a tie."""
        return majority(self.people)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Figures of a judge beside people; None where there is nothing to measure.

    num_pairs        pairs that were judged; num_decided, those in which people prefer an answer
    error_rate       pairs without a readable verdict, of all
    flip_rate        pairs whose verdict changes with the order of the answers, of those asked both ways
    tie_rate         ties of the judge, of the pairs with a verdict
    agreement        same answer preferred, of the decided pairs; a tie of the judge counts one half
    kappa            Cohen's kappa over first, second and tie, with its 95 % interval over groups
    longest          agreement of "the longer answer wins"; equal lengths count one half
    people           agreement of people with each other: pairs of votes on one pair, ties among them one half
    longer_judge     how often the judge prefers the longer answer, of the pairs it decides; longer_people, people
    """

    num_pairs: int
    num_decided: int
    error_rate: float
    flip_rate: float | None
    tie_rate: float | None
    agreement: float | None
    agreement_interval: Interval
    kappa: float | None
    kappa_interval: Interval
    longest: float | None
    people: float | None
    longer_judge: float | None
    longer_people: float | None


def calibrate(found: Sequence[tuple[Labelled, Judgement]], *, seed: int = 0) -> Calibration:
    """Compare judgements with what people said. `seed` is that of the bootstrap."""
    read = [(pair, it) for pair, it in found if it.winner != "error"]
    decided = [(pair, it) for pair, it in found if pair.winner in ("1", "2")]
    points = [_point(pair.winner, it.winner) for pair, it in decided]
    groups = torch.tensor([pair.group for pair, _ in decided])
    kappa, kappa_interval = _kappa(read, seed)
    return Calibration(
        num_pairs=len(found),
        num_decided=len(decided),
        error_rate=1 - len(read) / len(found) if found else 0.0,
        flip_rate=_mean([float(it.flipped) for _, it in read if it.flipped is not None]),
        tie_rate=_mean([float(it.winner == "tie") for _, it in read]),
        agreement=_mean(points),
        agreement_interval=_mean_interval(points, groups, seed),
        kappa=kappa,
        kappa_interval=kappa_interval,
        longest=_mean([_point(pair.winner, _longer(pair.case) or "tie") for pair, _ in decided]),
        people=_mean([point for pair, _ in found for point in _among(pair.people)]),
        longer_judge=_mean(_chose_longer([(pair.case, it.winner) for pair, it in read])),
        longer_people=_mean(_chose_longer([(pair.case, pair.winner) for pair, _ in decided])),
    )


def _point(people: str, other: str) -> float:
    """Score a vote against a decided one: an error is as wrong as the other answer."""
    return 0.5 if other == "tie" else float(other == people)


def _among(people: Sequence[Winner]) -> list[float]:
    """Compare people with each other as the judge is compared with them: each vote with each decided one."""
    votes = [vote for vote in people if vote in _CATEGORIES]
    return [
        _point(one, other)
        for i, one in enumerate(votes)
        for j, other in enumerate(votes)
        if i != j and one in ("1", "2")
    ]


def _longer(case: Case) -> Winner | None:
    one, two = map(len, case.responses)
    return None if one == two else "1" if one > two else "2"


def _chose_longer(verdicts: Sequence[tuple[Case, str]]) -> list[float]:
    return [
        float(winner == longer)
        for case, winner in verdicts
        if winner in ("1", "2") and (longer := _longer(case)) is not None
    ]


def _kappa(read: Sequence[tuple[Labelled, Judgement]], seed: int) -> tuple[float | None, Interval]:
    pairs = [(pair, it) for pair, it in read if pair.winner in _CATEGORIES]
    if not pairs:
        return None, None
    people = torch.tensor([_CATEGORIES[pair.winner] for pair, _ in pairs])
    judge = torch.tensor([_CATEGORIES[it.winner] for _, it in pairs])
    tables = confusion(people, judge, len(_CATEGORIES))
    groups = torch.tensor([pair.group for pair, _ in pairs])
    return cohen_kappa(tables.sum(0)), bootstrap_interval(cohen_kappa, tables, groups, seed=seed)


def _mean_interval(points: Sequence[float], groups: torch.Tensor, seed: int) -> Interval:
    if not points:
        return None
    parts = torch.tensor([[point, 1.0] for point in points], dtype=torch.float64)

    def mean(total: torch.Tensor) -> float | None:
        return float(total[0] / total[1]) if total[1] else None

    return bootstrap_interval(mean, parts, groups, seed=seed)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True)
class Demand:
    """One thing a judge must meet: in words, with its figures; `met` is None where it cannot be told."""

    words: str
    met: bool | None


def demands(figures: Calibration, thresholds: Mapping[str, float]) -> list[Demand]:
    """Hold the figures against the section Thresholds of the configuration."""
    t = thresholds
    agreement, longest = figures.agreement, figures.longest
    found = [
        Demand(
            f"{figures.num_decided} pairs decided by people, at least {t['min_pairs']:.0f}",
            figures.num_decided >= t["min_pairs"],
        ),
        _most("pairs without a verdict", figures.error_rate, t["max_error_rate"]),
        _most("verdicts that change with the order", figures.flip_rate, t["max_flip_rate"]),
    ]
    over = None if agreement is None or longest is None else agreement - longest
    words = "agreement above that of always taking the longer answer"
    found.append(_least(words, over, t["min_over_longest"]))
    below = None if agreement is None or figures.people is None else figures.people - agreement
    found.append(_most("agreement below that of people with each other", below, t["max_below_people"]))
    both = figures.longer_judge is not None and figures.longer_people is not None
    excess = (figures.longer_judge or 0.0) - (figures.longer_people or 0.0) if both else None
    found.append(_most("longer answers preferred more often than by people", excess, t["max_length_excess"]))
    return found


def _most(words: str, value: float | None, limit: float) -> Demand:
    return Demand(_told(words, value, f"at most {limit:.1%}"), None if value is None else value <= limit)


def _least(words: str, value: float | None, limit: float) -> Demand:
    # Not better than a rule that reads nothing is not enough.
    return Demand(_told(words, value, f"more than {limit:.1%}"), None if value is None else value > limit)


def _told(words: str, value: float | None, limit: str) -> str:
    return f"{words}: {'not measured' if value is None else f'{value:+.1%}' if value < 0 else f'{value:.1%}'}, {limit}"


def may_stand_in(found: Sequence[Demand]) -> bool:
    """Say go where every demand that can be told is met, and at least the first one can."""
    return bool(found) and all(demand.met is not False for demand in found)
