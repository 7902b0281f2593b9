"""The results of `rlhf eval` for reading."""

from collections.abc import Sequence

from rlhf_cli.tools.eval_language import Distance, Likelihood
from rlhf_cli.tools.eval_reward import Agreement
from rlhf_cli.tools.eval_rows import Estimate
from rlhf_cli.tools.eval_wins import Wins
from rlhf_cli.tools.text_table import align, number


def likelihoods(found: Sequence[Likelihood]) -> str:
    """Write perplexities, one source a line."""
    header = ("source", "rows", "tokens", "nats per token", "perplexity")
    rows = [
        (it.source, number(it.rows), number(it.tokens), it.loss.in_words(), it.perplexity.in_words())
        for it in found
    ]
    return align(header, rows)


def distance(found: Distance, one: str, other: str) -> str:
    """Write a KL divergence."""
    return "\n".join(
        [
            f"KL({one} || {other}) over {found.answers} answers, {found.tokens} tokens, in nats",
            f"  per answer  {found.kl_per_answer.in_words()}",
            f"  per token   {found.kl_per_token.in_words()}",
        ]
    )


def agreements(found: Sequence[Agreement]) -> str:
    """Write how a reward model does, one source a line, and its calibration on the last."""
    header = (
        "source",
        "pairs",
        "accuracy",
        "chosen longer",
        "chosen shorter",
        "margin",
        "ECE",
        "score~length",
    )
    rows = [
        (
            it.source,
            number(it.pairs),
            it.accuracy.in_words(".3f"),
            *(_rate(part) for part in it.accuracy_by_length),
            number(it.margin),
            f"{it.calibration_error:.3f}",
            f"{it.length_correlation:.2f}",
        )
        for it in found
    ]
    lines = [align(header, rows), "", f"calibration on {found[-1].source}"]
    bins = [
        (f"{it['confidence']:.3f}", f"{it['accuracy']:.3f}", number(it["count"]))
        for it in found[-1].calibration
    ]
    lines.append(align(("sure", "right", "pairs"), bins))
    if any(it.ties for it in found):
        lines.append(f"{found[-1].ties} ties are left out")
    return "\n".join(lines)


def _rate(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f}"


def wins(found: Wins) -> str:
    """Write a win rate."""
    lines = [
        f"A  {found.a}",
        f"B  {found.b}",
        f"by {', '.join(found.judges)}: {found.comparisons} comparisons,"
        f" A won {found.wins}, lost {found.losses}, tied {found.ties}",
        f"  win rate of A        {found.win_rate.in_words('.3f')}",
        f"  at equal length      {found.length_controlled.in_words('.3f')}",
        f"  A is longer by       {found.mean_length_difference:+.1f} {found.unit} on average",
    ]
    if found.left_out:
        lines.append(f"  {found.left_out} pairs say nothing and are left out")
    return "\n".join(lines)
