"""From graded answers to the figures of the table, and to the requests worth showing. Numbers only, no models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rlhf_cli.algo.metrics import wilson_interval
from rlhf_cli.quickstart import gold

ALIGNED = ("dpo", "ppo")
MODELS = ("sft", *ALIGNED)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with its grades.

    `log_ratio` is log p - log p_sft of its tokens, summed, in nats; None for answers not sampled at temperature 1.
    """

    text: str
    finished: bool
    gold: float
    parts: Mapping[str, float]
    reward: float
    log_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of a table: means over all requests.

    `kl` is in nats per answer, None for greedy answers. `win_rate` and its 95 % interval compare with SFT; None for
    SFT itself.
    """

    gold: float
    parts: dict[str, float]
    reward: float
    kl: float | None
    words: float
    eos_rate: float
    win_rate: float | None = None
    win_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one seed, by model; `rm_accuracy` is None where its run did not measure it."""

    seed: int
    num_requests: int
    rm_accuracy: float | None
    sampled: dict[str, Figures]
    greedy: dict[str, Figures]


@dataclass(frozen=True, slots=True)
class Sample:
    """A request worth showing, by its index, and why; `failed` names the models whose gold is below SFT's."""

    index: int
    reason: str
    failed: tuple[str, ...]


def figures_by_model(answers: Mapping[str, Sequence[Answer]]) -> dict[str, Figures]:
    """Summarise the answers of every model to the same requests."""
    sft = answers["sft"]
    return {name: summarise(own, None if name == "sft" else sft) for name, own in answers.items()}


def summarise(answers: Sequence[Answer], rivals: Sequence[Answer] | None) -> Figures:
    """Average over a model's answers; compare each with the rival's answer to the same request, if there is one."""
    log_ratios = [answer.log_ratio for answer in answers if answer.log_ratio is not None]
    wins = None if rivals is None else sum(map(_verdict, answers, rivals))
    return Figures(
        gold=fmean(answer.gold for answer in answers),
        parts={part: fmean(answer.parts[part] for answer in answers) for part in answers[0].parts},
        reward=fmean(answer.reward for answer in answers),
        kl=fmean(log_ratios) if log_ratios else None,
        words=fmean(len(answer.text.split()) for answer in answers),
        eos_rate=fmean(answer.finished for answer in answers),
        win_rate=None if wins is None else wins / len(answers),
        win_interval=None if wins is None else wilson_interval(wins, len(answers)),
    )


def _verdict(own: Answer, rival: Answer) -> float:
    """Judge as gold does: 1 for the better answer, 0.5 for two less than `gold.TIE` apart."""
    difference = own.gold - rival.gold
    if abs(difference) < gold.TIE:
        return 0.5
    return float(difference > 0)


def choose_samples(answers: Mapping[str, Sequence[Answer]]) -> list[Sample]:
    """Choose the largest and the median gain over SFT (mean of the aligned models), and each one's worst failure.

    Of equals the first is taken. Up to four requests; fewer where one fits twice or nothing failed.
    """
    losses = {name: _losses(answers["sft"], answers[name]) for name in ALIGNED}
    by_gain = sorted(range(len(answers["sft"])), key=lambda i: sum(losses[name][i] for name in ALIGNED))
    reasons = {by_gain[0]: "the largest gain", by_gain[len(by_gain) // 2]: "the median gain"}
    for name in ALIGNED:
        worst = max(by_gain, key=lambda i: (losses[name][i], -i))
        if losses[name][worst] > 0:
            known = reasons.pop(worst, None)  # failures stand last
            own = f"the worst of {name.upper()}"
            reasons[worst] = f"{known}, {own}" if known else own
    return [
        Sample(index, reason, tuple(name for name in ALIGNED if losses[name][index] > 0))
        for index, reason in reasons.items()
    ]


def _losses(sft: Sequence[Answer], own: Sequence[Answer]) -> list[float]:
    """Say for each request how much gold an answer loses to SFT's; negative for a gain."""
    return [rival.gold - answer.gold for answer, rival in zip(own, sft, strict=True)]
