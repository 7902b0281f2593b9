"""Losses of supervised fine-tuning and of the reward model."""

import torch.nn.functional as F
from torch import Tensor


def sft_loss(logprobs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum the negative log-likelihood of the labelled tokens: logprobs [N], weights [N] or None -> [].

    L = -sum_n w_n log p(y_n | y_<n); dividing by sum_n w_n of the whole step gives the token mean.
    """
    return -(logprobs if weights is None else weights * logprobs).sum()


def bradley_terry(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    *,
    p_chosen: Tensor,
    margin: Tensor,
    center: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Score pairs by the negative log-likelihood of the preference: four [B] -> [B], >= 0.

        d = r_c - r_r - m        q = (1 - eps) p + eps (1 - p)
        L = -q log sigma(d) - (1 - q) log sigma(-d) + center (r_c + r_r)^2

    `p_chosen` is P(chosen is better): 1 sure, 0.5 a tie, whose loss is least at d = 0.
    Bradley & Terry 1952; Ouyang et al. 2022 (arXiv 2203.02155) eq. 1; margin: Touvron et al. 2023
    (arXiv 2307.09288) eq. 2; centering: Eisenstein et al. 2023 (arXiv 2312.09244).
    """
    difference = chosen_scores - rejected_scores - margin
    target = (1 - label_smoothing) * p_chosen + label_smoothing * (1 - p_chosen)
    nll = -target * F.logsigmoid(difference) - (1 - target) * F.logsigmoid(-difference)
    return nll + center * (chosen_scores + rejected_scores).square()
