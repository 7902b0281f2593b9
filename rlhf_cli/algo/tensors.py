"""Masked and segmented reductions, and log-probabilities of tokens: the vocabulary of the other files.

Masks are bool tensors, True counts. What lies under False never reaches a result, not even NaN.
"""

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8


def shift_logprobs(logits: Tensor, target_ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / T)[target] in fp32: logits [N, V], target_ids [N] -> [N] nats.

    Row i of `logits` predicts `target_ids[i]`: the caller shifts by one position when it picks rows.
    """
    scaled = _scale(logits, temperature)
    return scaled.gather(-1, target_ids.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Measure -sum_v p_v log p_v of softmax(logits / T): [N, V] -> [N] nats, without gradient.

    Logits of -inf are allowed: p log p is 0 at p = 0.
    """
    probabilities = _scale(logits.detach(), temperature).softmax(-1)
    surprise: Tensor = torch.special.entr(probabilities)
    return surprise.sum(-1)


def _scale(logits: Tensor, temperature: float) -> Tensor:
    # Dividing by 1.0 would cost a second [N, V] tensor.
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Add up the values where mask is True: any shape -> []."""
    return values.masked_fill(~mask, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average the values where mask is True: any shape -> []; 0 where nothing counts."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population variance (divisor n, not n - 1) where mask is True: -> ([], [])."""
    mean = masked_mean(values, mask)
    return mean, masked_mean((values - mean).square(), mask)


def whiten(
    values: Tensor,
    mask: Tensor,
    *,
    keep_mean: bool = False,
    moments: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Scale to variance 1 and, unless `keep_mean`, shift to mean 0: any shape -> same, 0 under the mask.

    (x - mean) / sqrt(var + 1e-8). `moments` is (mean, population variance) of the global batch where
    `values` is only this process's share of it; by default both are taken from `values`.
    """
    mean, variance = masked_moments(values, mask) if moments is None else moments
    centered = (values - mean) * torch.rsqrt(variance + WHITEN_EPSILON)
    return (centered + mean if keep_mean else centered).masked_fill(~mask, 0.0)


def segment_sum(values: Tensor, row_index: Tensor, num_rows: int) -> Tensor:
    """Add values[n] into row row_index[n]: values [N], row_index [N] int64 -> [num_rows].

    A row that no index names is 0. On CUDA the order of addition is not fixed, so the last bit may vary
    unless torch.use_deterministic_algorithms is on.
    """
    return values.new_zeros(num_rows).index_add(0, row_index, values)
