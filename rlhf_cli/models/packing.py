"""Packed rows through transformers: whether a model can take them, and attention answer by answer.

`algo.packing` says what they are. Their layout travels where transformers expects a 4-D mask, the one argument that
every model hands to its attention as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf_cli.algo.packing import SHAPE_STEP, pack
from rlhf_cli.models import decoding
from rlhf_cli.models.products import attend_by_products
from rlhf_cli.models.unread import finish_only_at

_ATTENTION = "rlhf_packed"  # sdpa, where no layout is given
_PROBE_IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
_PROBE_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_PROBE_REPEATS = 1 + 2 * SHAPE_STEP // 10
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


def read_only_at(model: PreTrainedModel, index: Tensor) -> AbstractContextManager[None]:
    """Let a model that may be packed leave out what nobody reads if only the positions `index` [N] are read."""
    if model.config._attn_implementation != _ATTENTION:
        return nullcontext()
    return finish_only_at(model, index)


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
        error = _probe(core)
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
def _probe(core: PreTrainedModel) -> float:
    """Measure how far the hidden states of packed rows are from those of the rows alone, relative to the largest."""
    base = core.base_model
    device = next(base.parameters()).device
    rows = [ids[mask.bool()].to(device) for ids, mask in zip(_PROBE_IDS, _PROBE_MASK, strict=True)]
    alone = [base(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in rows]
    # The first row is a prompt with its last two tokens as two equal answers; the second is plain.
    shared = torch.cat([rows[0], rows[0][3:], rows[1]])
    expected = torch.cat([alone[0], alone[0][3:], alone[1]])
    read = torch.arange(len(shared), device=device)
    # Often enough that there are some which are not read.
    packed = pack(shared.repeat(_PROBE_REPEATS), [(3, 2, 2), (3,)] * _PROBE_REPEATS)
    with read_only_at(core, read):
        states = base(**packed, use_cache=False).last_hidden_state[0, read]
    return float((states - expected).abs().max() / expected.abs().max())


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
        return decoding.attend(module, query, key, value, attention_mask, **kwargs)
    query, key, layout = query.to(value.dtype), key.to(value.dtype), attention_mask[0, 0].tolist()
    if value.device.type == "cpu" and not kwargs.get("dropout"):
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        return attend_by_products(query, key, value, layout, scale), None
    attend = partial(_attend, module, **kwargs)
    return torch.cat(list(_by_row(attend, query, key, value, layout)), dim=1), None


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


def _seen_mask(query: Tensor, key: Tensor) -> Tensor:
    """Say which of S positions the last L see: [1, 1, L, S], each those up to itself."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
    return seen.tril(num_keys - num_queries)[None, None]


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
