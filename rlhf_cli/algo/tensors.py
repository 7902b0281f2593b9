"""Masked and segmented reductions, and log-probabilities of tokens: the vocabulary of the other files.

Masks are bool tensors, True counts. What lies under False never reaches a result, not even NaN.
"""

from typing import Any

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8
_ROWS_AT_ONCE = 256


def shift_logprobs(logits: Tensor, target_ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / T)[target] in fp32: logits [N, V], target_ids [N] -> [N] nats.

    Row i of `logits` predicts `target_ids[i]`: the caller shifts by one position when it picks rows.
    """
    logprobs: Tensor = _TargetLogprobs.apply(logits, target_ids, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _TargetLogprobs(torch.autograd.Function):
    """log p_i(y_i), a few rows at a time: of [N, V] nothing is kept but the logits as they are.

    d log p_i(y_i) / d z_iv = ([v = y_i] - p_iv) / T, computed from the logits once more, in fp32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target_ids: Tensor, temperature: float) -> Tensor:
        taken, total = [], []
        for part, ids in zip(
            *(torch.split(each, _ROWS_AT_ONCE) for each in (logits, target_ids)), strict=True
        ):
            scaled = _scale(part, temperature)
            total.append(scaled.logsumexp(-1))
            taken.append(scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1))
        logsumexp = torch.cat(total)
        ctx.save_for_backward(logits, target_ids, logsumexp)
        ctx.temperature = temperature
        return torch.cat(taken) - logsumexp

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, target_ids, logsumexp = ctx.saved_tensors
        weight = gradients[0] / ctx.temperature
        result = torch.empty_like(logits)
        for start in range(0, len(logits), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            ids, each = target_ids[rows, None], weight[rows, None]
            part = (_scale(logits[rows], ctx.temperature) - logsumexp[rows, None]).exp_().mul_(-each)
            result[rows] = part.scatter_add_(-1, ids, each)
        return result, None, None


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
