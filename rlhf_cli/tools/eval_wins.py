"""`rlhf eval wins`: how often the answers of A beat those of B, by the votes of a collect run or by a reward model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.algo.agreement import bootstrap_interval
from rlhf_cli.algo.win_rate import length_controlled
from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.models.device import micro_tokens_for
from rlhf_cli.models.heads import load_reward_model
from rlhf_cli.models.packing import allow_packing
from rlhf_cli.preference.consensus import outcomes
from rlhf_cli.preference.store import Pair, Response, Store
from rlhf_cli.reward.trained import TrainedScorer
from rlhf_cli.tools.eval_rows import Estimate
from rlhf_cli.tools.manner import Manner
from rlhf_cli.tools.speaker import Speaker, read_prompt_file

_NUM_SAMPLES = 500


@dataclass(frozen=True)
class Comparison:
    """One prompt: what A's answer earned against B's (1, 0.5 or 0), and how much longer it is."""

    prompt: str
    share: float
    length_difference: float


@dataclass(frozen=True)
class Wins:
    """Win rate of A, ties counting half; `length_controlled` is what it would be at equal length.

    judges    who voted, or the reward model
    unit      what lengths are counted in
    left_out  pairs that say nothing: skipped, failed, both bad
    """

    a: str
    b: str
    judges: list[str]
    comparisons: int
    wins: int
    ties: int
    losses: int
    left_out: int
    win_rate: Estimate
    length_controlled: Estimate
    mean_length_difference: float
    unit: str


def wins_in_run(run: Path) -> Wins:
    """Count the votes of a collect run whose two candidates are A and B.

    Identical answers are ties. Raises MissingInputError where there is no such run, DataError where one candidate
    answered twice, or nothing is voted on.
    """
    database = run / "collect.db"
    if not database.is_file():
        raise MissingInputError(
            f"{run} is no collect run", where=str(run), fix="Give one, or two models and --prompts."
        )
    with Store(database) as store:
        decided = {it.pair_id: it for it in outcomes(store.votes())}
        pairs = list(store.pairs())
        judges = sorted(store.labelers())
        num_identical = store.num_pairs(identical=True)
    if pairs and len({it.candidate for it in pairs[0].responses}) < 2:
        raise DataError(
            "both answers of each pair are of one candidate, so there is nobody to win",
            where=str(run),
            fix="Collect with two entries in candidates.",
        )
    shares = {"1": 1.0, "tie": 0.5, "2": 0.0}
    found = [
        Comparison(str(pair.prompt_id), shares[decided[pair.id].winner], _difference(pair.responses))
        for pair in pairs
        if pair.id in decided and decided[pair.id].winner in shares
    ]
    if not found:
        raise DataError("nothing is voted on yet", where=str(run), fix="Go on with rlhf collect.")
    same = [Comparison(f"identical {i}", 0.5, 0.0) for i in range(num_identical)]
    left_out = len(pairs) - len(found) - num_identical
    return count([*found, *same], _names(pairs[0]), judges, left_out=left_out, unit="characters")


def _names(pair: Pair) -> tuple[str, str]:
    one, other = pair.responses
    if one.model != other.model:
        return one.model, other.model
    return f"{one.model} at {one.temperature:g}", f"{other.model} at {other.temperature:g}"


def _difference(responses: tuple[Response, Response]) -> float:
    one, other = responses
    return float(len(one.text) - len(other.text))


def wins_by_reward(
    models: tuple[str, str], reward: str, prompts: str, *, manner: Manner, limit: int | None
) -> Wins:
    """Sample an answer of each model to each prompt and let a reward model choose."""
    records = read_prompt_file(prompts, limit)
    speakers = [Speaker.open(path, manner.template) for path in models]
    answers = [list(speaker.answer(records, manner)) for speaker in speakers]
    both = [(a, b) for a, b in zip(*answers, strict=True) if a and b]
    if not both:
        raise DataError("no prompt leaves room for an answer", where=prompts, fix="Give shorter prompts.")
    loaded = load_reward_model(reward).loaded
    allow_packing(loaded.core)
    scorer = TrainedScorer(
        loaded.core,
        loaded.vocabulary.pad_id,
        mean=0.0,
        std=1.0,
        micro_tokens=micro_tokens_for("auto", loaded.device),
        autocast=nullcontext,
        device=loaded.device,
    )
    scores = [scorer.score([pair[side] for pair in both]) for side in (0, 1)]
    found = [
        Comparison(str(i), 0.5 + 0.5 * ((a > b) - (a < b)), len(x.completion_ids) - len(y.completion_ids))
        for i, ((x, y), a, b) in enumerate(zip(both, *scores, strict=True))
    ]
    return count(found, models, [reward], left_out=len(records) - len(both), unit="tokens")


def count(
    found: Sequence[Comparison], models: tuple[str, str], judges: list[str], *, left_out: int, unit: str
) -> Wins:
    """Estimate the rates; intervals resample prompts, so that several pairs of one prompt count as one."""
    shares = torch.tensor([it.share for it in found], dtype=torch.float64)
    differences = torch.tensor([it.length_difference for it in found], dtype=torch.float64)
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(it.prompt for it in found))}
    clusters = torch.tensor([numbers[it.prompt] for it in found])
    one_hot = torch.eye(len(found), dtype=torch.float64)

    def rate(weights: Tensor) -> float:
        return float((weights * shares).sum() / weights.sum())

    def controlled(weights: Tensor) -> float:
        return length_controlled(shares, differences, weights)

    intervals = [
        bootstrap_interval(statistic, one_hot, clusters, seed=0, num_samples=_NUM_SAMPLES) or (None, None)
        for statistic in (rate, controlled)
    ]
    everyone = torch.ones(len(found), dtype=torch.float64)
    return Wins(
        *models,
        judges=judges,
        comparisons=len(found),
        wins=int((shares == 1).sum()),
        ties=int((shares == 0.5).sum()),
        losses=int((shares == 0).sum()),
        left_out=left_out,
        win_rate=Estimate(rate(everyone), *intervals[0]),
        length_controlled=Estimate(controlled(everyone), *intervals[1]),
        mean_length_difference=float(differences.mean()),
        unit=unit,
    )
