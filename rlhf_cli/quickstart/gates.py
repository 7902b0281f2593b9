"""What the example promises about its own results, and whether they keep it."""

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_cli.quickstart.figures import ALIGNED, Figures, Results

LEAST_GAIN = 0.10
MOST_FALL = 0.05
LEAST_EOS_RATE = 0.98
MOST_KL = 10.0
LEAST_RM_ACCURACY = 0.75

_ROUNDING = 1e-9  # equal means, summed in another order


@dataclass(frozen=True, slots=True)
class Gate:
    """A promise, the figures it is about, and whether they keep it."""

    promise: str
    figures: str
    ok: bool


def check_gates(results: Results) -> list[Gate]:
    """Hold all promises against the figures of one seed."""
    return [
        _gain(f"T=1 gold >= SFT + {LEAST_GAIN:.2f}", results.sampled, LEAST_GAIN),
        _gain("greedy gold >= SFT", results.greedy, 0.0),
        _parts(results),
        _eos(results),
        _kl(results.sampled["ppo"].kl),
        _accuracy(results.rm_accuracy),
    ]


def _gain(promise: str, figures: dict[str, Figures], least: float) -> Gate:
    gains = {name: figures[name].gold - figures["sft"].gold for name in ALIGNED}
    return Gate(promise, _each(lambda name: f"{gains[name]:+.3f}"), min(gains.values()) >= least - _ROUNDING)


def _parts(results: Results) -> Gate:
    """Take each model's part that changed for the worst, at either temperature."""
    worst = {
        name: min(
            (figures[name].parts[part] - value, part)
            for figures in (results.sampled, results.greedy)
            for part, value in figures["sft"].parts.items()
        )
        for name in ALIGNED
    }
    return Gate(
        f"every part >= SFT - {MOST_FALL:.2f}",
        _each(lambda name: f"{worst[name][1]} {worst[name][0]:+.3f}"),
        min(change for change, _ in worst.values()) >= -MOST_FALL - _ROUNDING,
    )


def _eos(results: Results) -> Gate:
    rates = {name: min(results.sampled[name].eos_rate, results.greedy[name].eos_rate) for name in ALIGNED}
    return Gate(
        f"EOS rate >= {LEAST_EOS_RATE:.2f}",
        _each(lambda name: f"{rates[name]:.3f}"),
        min(rates.values()) >= LEAST_EOS_RATE,
    )


def _kl(kl: float | None) -> Gate:
    figures = "not measured" if kl is None else f"PPO {kl:.2f}"
    return Gate(f"KL < {MOST_KL:.0f} nats per answer", figures, kl is not None and kl < MOST_KL)


def _accuracy(accuracy: float | None) -> Gate:
    figures = "not measured" if accuracy is None else f"RM {accuracy:.3f}"
    ok = accuracy is not None and accuracy >= LEAST_RM_ACCURACY
    return Gate(f"held-out accuracy >= {LEAST_RM_ACCURACY:.2f}", figures, ok)


def _each(figure: Callable[[str], str]) -> str:
    return ", ".join(f"{name.upper()} {figure(name)}" for name in ALIGNED)
