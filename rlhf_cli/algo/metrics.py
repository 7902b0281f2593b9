"""Measures of a preference model on held-out pairs: agreement, calibration, and how sure a rate is."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

NUM_BINS = 10
Z_95 = 1.959963984540054


def pair_accuracy(margins: Tensor) -> float:
    """Return the share of pairs with score_chosen - score_rejected > 0, a 0 counting half: [B] -> [0, 1].

    NaN for no pairs.
    """
    return _agreement(margins).mean().item()


def expected_calibration_error(margins: Tensor) -> float:
    """Return sum_k (n_k / B) |accuracy_k - confidence_k| of score_chosen - score_rejected: [B] -> [0, 1].

    The model names the better completion with confidence sigma(|margin|) in [0.5, 1], cut into 10
    bins of equal width; accuracy is the share it names right. Guo et al. 2017 (arXiv 1706.04599) eq. 3.
    NaN for no pairs.
    """
    margins = margins.double()
    confidence = torch.sigmoid(margins.abs())
    bins = ((confidence - 0.5) * 2 * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    gaps = margins.new_zeros(NUM_BINS).index_add(0, bins, _agreement(margins) - confidence)
    return (gaps.abs().sum() / margins.numel()).item()


def calibration_bins(margins: Tensor) -> list[dict[str, float]]:
    """Return count, mean confidence and accuracy of each bin of `expected_calibration_error` that is not empty."""
    margins = margins.double()
    confidence = torch.sigmoid(margins.abs())
    bins = ((confidence - 0.5) * 2 * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    agreement = _agreement(margins)
    return [
        {
            "count": int((bins == k).sum()),
            "confidence": confidence[bins == k].mean().item(),
            "accuracy": agreement[bins == k].mean().item(),
        }
        for k in sorted(set(bins.tolist()))
    ]


def histogram(columns: Mapping[str, Tensor], *, num_bins: int = 24) -> dict[str, list[float]]:
    """Count each column, [N] of any N, in bins of equal width over the range of all of them.

    Returns {"edges": num_bins + 1 numbers, name: num_bins counts}.
    """
    everything = torch.cat([column.double() for column in columns.values()])
    low, high = everything.min().item(), everything.max().item()
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, num_bins + 1, dtype=torch.float64)
    counts = {
        name: torch.histc(column.double(), num_bins, min=low, max=high).tolist()
        for name, column in columns.items()
    }
    return {"edges": edges.tolist(), **counts}


def correlation(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation of two [N] -> [-1, 1]; 0 where one of them does not vary, or N < 2."""
    one, other = one.double() - one.double().mean(), other.double() - other.double().mean()
    spread = (one.square().sum() * other.square().sum()).sqrt()
    return (one @ other / spread).item() if spread > 0 else 0.0


def _agreement(margins: Tensor) -> Tensor:
    return 0.5 * (1 + torch.sign(margins.double()))


def wilson_interval(num_successes: float, num_trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the (low, high) that hold a rate with 95 % confidence; (0, 1) for no trials.

    (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n), p = num_successes / num_trials.
    Half successes are allowed. Wilson 1927, "Probable inference".
    """
    if num_trials == 0:
        return 0.0, 1.0
    rate, spread = num_successes / num_trials, z * z / num_trials
    half_width = z * math.sqrt(rate * (1 - rate) / num_trials + spread / (4 * num_trials))
    low, high = rate + spread / 2 - half_width, rate + spread / 2 + half_width
    return max(0.0, low / (1 + spread)), min(1.0, high / (1 + spread))
