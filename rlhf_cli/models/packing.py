"""Packed rows through transformers: whether a model can take them, and attention answer by answer.

`algo.packing` says what they are. Their layout travels where transformers expects a 4-D mask, the one argument that
every model hands to its attention as it is.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf_cli.algo.packing import SHAPE_STEP, pack

_ATTENTION = "rlhf_packed"  # sdpa, where no layout is given
_PROBE_IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
_PROBE_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_LONGEST_FOR_PRODUCTS = 1024  # attention weights are kept, as many as the square of a row's length
_QUERIES_AT_ONCE = 256
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def unpad(input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
    """Pack the tokens of padded rows [B, T] where `attention_mask` [B, T] is 1; those of a row are adjacent."""
    lengths = attention_mask.sum(1).tolist()
    return pack(input_ids[attention_mask.bool()], [(length,) for length in lengths])


def rounded_up(index: Tensor) -> Tensor:
    """Fill an index [N] of what is read with zeros, to be thrown away, up to a size that occurs often."""
    return F.pad(index, (0, -len(index) % SHAPE_STEP))


def can_pack(model: nn.Module, longest: int) -> bool:
    """Say whether rows of up to `longest` tokens may be packed for a model; `allow_packing` has looked at it."""
    config: Any = model.config
    if config._attn_implementation != _ATTENTION:
        return False
    text = config.get_text_config().to_dict()
    limits = [text.get("sliding_window"), text.get("attention_chunk_size")]
    return all(limit is None or longest <= limit for limit in limits)


def allow_packing(core: PreTrainedModel) -> str | None:
    """Let rows be packed for a model if that gives what plain rows give; else say why not.

    A few tokens go through it both ways: that finds what no list of names does, such as layers that carry a state
    from token to token, positions that are counted from the mask, or attention of the model's own.
    """
    implementation = core.config._attn_implementation
    if implementation == _ATTENTION:
        return None
    if implementation != "sdpa":
        return f"its attention is {implementation}, not sdpa"
    was_training = core.training
    core.eval()
    try:
        core.set_attn_implementation(_ATTENTION)
        error = _probe(core.base_model)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as problem:
        core.set_attn_implementation("sdpa")
        return f"it does not take a layout: {str(problem).partition(chr(10))[0]}"
    finally:
        core.train(was_training)
    if error > _TOLERANCE[core.dtype]:
        core.set_attn_implementation("sdpa")
        return f"packed rows change its hidden states by {error:.0e} of their size"
    return None


@torch.no_grad()
def _probe(base: nn.Module) -> float:
    """Measure how far the hidden states of packed rows are from those of the rows alone, relative to the largest."""
    device = next(base.parameters()).device
    rows = [ids[mask.bool()].to(device) for ids, mask in zip(_PROBE_IDS, _PROBE_MASK, strict=True)]
    alone = [base(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in rows]
    # The first row is a prompt with its last two tokens as two equal answers; the second is plain.
    shared = pack(torch.cat([rows[0], rows[0][3:], rows[1]]), [(3, 2, 2), (3,)])
    packed = base(**shared, use_cache=False).last_hidden_state[0]
    expected = torch.cat([alone[0], alone[0][3:], alone[1]])
    packed = packed[: len(expected)]
    return float((packed - expected).abs().max() / expected.abs().max())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend row by row where `attention_mask` is a layout, else as sdpa: [1, H, N, D] -> [1, N, H, D]."""
    if attention_mask is None or attention_mask.dtype != torch.int32:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return plain
    query, key = query.to(value.dtype), key.to(value.dtype)
    attend = partial(_attend_on_cpu if value.device.type == "cpu" else _attend, module, **kwargs)
    return torch.cat(list(_by_row(attend, query, key, value, attention_mask[0, 0].tolist())), dim=1), None


def _by_row(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: list[list[int]],
) -> Iterator[Tensor]:
    """Attend from each prompt and its first answer at once, and from every other answer with the prompt in front."""
    lengths = [length for prompt, *answers in layout for length in (prompt + sum(answers[:1]), *answers[1:])]
    # One split: a slice for each row would put a whole [1, H, N, D] of zeros into the backward pass.
    pieces = zip(*(torch.split(states, lengths, 2) for states in (query, key, value)), strict=True)
    for prompt, *answers in layout:
        first_query, first_key, first_value = next(pieces)
        yield attend(first_query, first_key, first_value)
        prompt_key, prompt_value = first_key[:, :, :prompt], first_value[:, :, :prompt]
        for length in answers[1:]:
            own_query, own_key, own_value = next(pieces)
            if length > 0:
                keys = torch.cat([prompt_key, own_key], dim=2)
                yield attend(own_query, keys, torch.cat([prompt_value, own_value], dim=2))


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Attend from the last L of S positions to those up to each: [1, H, L, D], twice [1, K, S, D] -> [1, L, H, D]."""
    seen_mask = _seen_mask(query, key) if query.shape[2] < key.shape[2] else None
    attended: Tensor = sdpa_attention_forward(module, query, key, value, seen_mask, **kwargs)[0]
    return attended


def _attend_on_cpu(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Attend as above, with the matrix products of a CPU, which are several times faster than its attention kernels."""
    dtype = value.dtype
    if key.shape[2] <= _LONGEST_FOR_PRODUCTS:
        return _attend_by_products(module, query, key, value, **kwargs)
    with torch.autocast("cpu", enabled=False):
        return _attend(module, query.float(), key.float(), value.float(), **kwargs).to(dtype)


def _attend_by_products(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> Tensor:
    """Attend as above by two matrix products, a block of queries at a time, which skips most of what is not seen.

    Sizes are rounded up: what fills them lies behind the last query, where no other sees it.
    """
    groups = query.shape[1] // key.shape[1]
    num_queries, num_before = query.shape[2], key.shape[2] - query.shape[2]
    queries, keys, values = (
        F.pad(states[0], (0, 0, 0, -states.shape[2] % SHAPE_STEP))
        for states in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    seen_mask = torch.ones(queries.shape[1], keys.shape[1], dtype=torch.bool).tril(num_before)
    bias = torch.zeros((), dtype=query.dtype).where(seen_mask, -torch.inf)
    attended = []
    for begin in range(0, queries.shape[1], _QUERIES_AT_ONCE):
        rows = slice(begin, begin + _QUERIES_AT_ONCE)
        end = num_before + rows.stop + -num_before % SHAPE_STEP
        scores = torch.baddbmm(bias[rows, :end], queries[:, rows], keys[:, :end].mT, alpha=scale)
        weights = F.dropout(scores.softmax(-1), dropout)
        attended.append(torch.bmm(weights, values[:, :end]))
    return torch.cat(attended, dim=1)[:, :num_queries].transpose(0, 1)[None]


def _seen_mask(query: Tensor, key: Tensor) -> Tensor:
    """Say which of S positions the last L see: [1, 1, L, S], each those up to itself."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
    return seen.tril(num_keys - num_queries)[None, None]


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
