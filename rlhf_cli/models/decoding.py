"""Attention of one new token of each row to its cached keys and values, on a CPU.

PyTorch's attention for CPUs takes a product with a single row of a matrix for every head, at a fraction of the speed of
memory, and reads what is masked as well. Here rows are taken a few at a time, without the columns in front of all of
them: multiplied element by element, or as products where several heads share keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_ATTENTION = "rlhf_decoding"
_LEAST_ELEMENTS = 2**19  # of products of queries and keys; with fewer the kernel is faster
_ELEMENTS_AT_ONCE = 2**20  # of keys; what is made of them should stay in the cache of a processor


@contextmanager
def attending_from_one(model: PreTrainedModel) -> Iterator[None]:
    """Let a model on a CPU, if its attention is sdpa, attend from single tokens as above inside the block."""
    if model.config._attn_implementation != "sdpa" or model.device.type != "cpu":
        yield
        return
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as sdpa does, faster where it can be: [B, H, T, D], twice [B, K, S, D] -> [B, T, H, D]."""
    is_plain = not kwargs.get("dropout") and kwargs.get("position_bias") is None
    if is_plain and _is_large_step(query, key) and _is_by_row(attention_mask):
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        return attend_from_one(query, key, value, attention_mask, scale).transpose(1, 2), None
    plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return plain


def _is_large_step(query: Tensor, key: Tensor) -> bool:
    """Say whether one token per row has much to read, and nothing is learnt from it."""
    is_step = query.shape[2] == 1 and query.device.type == "cpu" and not torch.is_grad_enabled()
    return is_step and query.numel() * key.shape[2] >= _LEAST_ELEMENTS


def _is_by_row(mask: Tensor | None) -> bool:
    return mask is None or (mask.dtype == torch.bool and mask.shape[1:3] == (1, 1))


def attend_from_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attend from one token per row: [B, H, 1, D], twice [B, K, S, D], a mask [B, 1, 1, S] -> [B, H, 1, D].

    Head h of H reads key head h * K // H. Every row sees something.
    """
    num_rows, num_key_heads, num_columns, width = key.shape
    queries = (query * scale).view(num_rows, num_key_heads, -1, width)
    attended = query.new_empty(*queries.shape[:3], value.shape[-1])
    rows_at_once = max(1, _ELEMENTS_AT_ONCE // (num_key_heads * num_columns * width))
    for first_row in range(0, num_rows, rows_at_once):
        rows = slice(first_row, first_row + rows_at_once)
        seen_mask = None if mask is None else _without_unseen(mask[rows])
        columns = slice(0 if seen_mask is None else num_columns - seen_mask.shape[-1], num_columns)
        attended[rows] = _attend_at_once(
            queries[rows], key[rows, :, columns], value[rows, :, columns], seen_mask
        )
    return attended.view(num_rows, query.shape[1], 1, -1)


def _attend_at_once(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from the G heads that share each key head: [B, K, G, D], twice [B, K, S, D] -> [B, K, G, D]."""
    is_shared = queries.shape[2] > 1
    scores = queries @ keys.mT if is_shared else (queries * keys).sum(-1, dtype=torch.float32)[:, :, None]
    scores = scores.float()
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    weights = scores.softmax(-1).to(values.dtype)
    return weights @ values if is_shared else (weights.mT * values).sum(2, keepdim=True)


def _without_unseen(mask: Tensor) -> Tensor:
    """Leave out the columns of a mask [B, 1, 1, S] in front of the first one that any row sees."""
    first = int(mask.any(0)[0, 0].to(torch.uint8).argmax())
    return mask[..., first:]


AttentionInterface.register(_ATTENTION, attend)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
