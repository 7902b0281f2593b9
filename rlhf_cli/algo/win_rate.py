"""The win rate two models would have if their answers were equally long."""

import torch
from torch import Tensor

_RIDGE = 1e-2
_MOST_STEPS = 50


def length_controlled(wins: Tensor, length_differences: Tensor, weights: Tensor | None = None) -> float:
    """Return sigma(a) of the fit P(win) = sigma(a + b tanh(d / std(d))); NaN for no comparisons.

    wins [N] in [0, 1], a tie one half; d [N] is the winner candidate's length less the other's; weights [N] count
    each comparison. Both a and b carry a small ridge, so that they exist where every comparison is won. After
    Dubois et al. 2024 (arXiv 2404.04475), without their terms for single prompts and models.
    """
    if not len(wins):
        return float("nan")
    wins, d = wins.double(), length_differences.double()
    weights = torch.ones_like(wins) if weights is None else weights.double()
    scale = (d.square().mean()).sqrt().clamp(min=1e-12)
    features = torch.stack([torch.ones_like(d), torch.tanh(d / scale)], dim=1)
    coefficients = torch.zeros(2, dtype=torch.float64)
    ridge = _RIDGE * torch.eye(2, dtype=torch.float64)
    for _ in range(_MOST_STEPS):
        p = torch.sigmoid(features @ coefficients)
        gradient = features.T @ (weights * (wins - p)) - ridge @ coefficients
        curvature = (features * (weights * p * (1 - p))[:, None]).T @ features + ridge
        step = torch.linalg.solve(curvature, gradient)
        coefficients = coefficients + step
        if float(step.abs().max()) < 1e-10:
            break
    return float(torch.sigmoid(coefficients[0]))
