"""Preference losses that need no reference model: one value per pair, from log-probs per token of the completions.

Notation, all [B]: c = log pi(chosen) / n_c, r the same for rejected, l(x) = -log sigma(x).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["simpo", "orpo"]
KINDS: frozenset[str] = frozenset({"simpo", "orpo"})


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, target_margin: float) -> Tensor:
    """l(beta (c - r) - gamma), gamma = target_margin: two [B] -> [B]. Meng et al. 2024 (arXiv 2405.14734) eq. 6."""
    return -F.logsigmoid(beta * (chosen - rejected) - target_margin)


def orpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """-c + beta l(log odds(c) - log odds(r)): two [B] -> [B].

    odds(x) = p / (1 - p) with p = exp(x); the first term is the supervised loss of the chosen answer. Hong et al.
    2024 (arXiv 2403.07691) eqs. 3, 6 and 7, their lambda being beta.
    """
    return -chosen - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(mean_logprob: Tensor) -> Tensor:
    # p = 1 has infinite odds: its logarithm is kept this side of it.
    below_one = mean_logprob.clamp(max=-1e-6)
    return below_one - torch.log(-torch.expm1(below_one))
