"""Log-probs of labelled tokens, with the language-model head on those positions only.

`[B, T, V]` logits never exist: a hook in front of the head keeps the N hidden states that predict labelled tokens.
What the model does to its logits behind the head (soft caps, scales) still happens, on `[N, V]`; where even that is
large, on a part of the N at a time, and once more in the backward pass instead of being kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf_cli.algo.tensors import entropy, shift_logprobs
from rlhf_cli.models.packing import can_pack, read_only_at, rounded_up, unpad
from rlhf_cli.models.parallel import is_shared_out

MOST_LOGITS = 2**25  # that exist at once, in fp32 128 MiB; up to here nothing is computed twice


def logprobs_at(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    predictor_index: Tensor,
    target_ids: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Give the log-probs [N] (nats, fp32) of any tokens where any positions, counted row by row, predict them.

    `inputs` is what the model is called with, in whatever layout.
    """
    parts = _read(model, inputs, rounded_up(predictor_index), rounded_up(target_ids), temperature)
    return torch.cat([logprobs for logprobs, _ in parts])[: len(target_ids)]


def logprobs_and_entropy_at(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    predictor_index: Tensor,
    target_ids: Tensor,
    *,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Give log-probs [N] as above, and the detached entropy [N] in nats of each predicting distribution."""
    rounded = rounded_up(predictor_index), rounded_up(target_ids)
    parts = list(_read(model, inputs, *rounded, temperature, with_entropy=True))
    logprobs, entropies = (torch.cat(column)[: len(target_ids)] for column in zip(*parts, strict=True))
    return logprobs, entropies


def labelled_logprobs(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    loss_mask: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Give the log-probs [N] (nats, fp32) of the labelled tokens at `temperature`, in row-major order.

    A label on the first token of a row has nothing that predicts it; callers mask it out.
    """
    return logprobs_at(
        model, *_flattened(model, input_ids, attention_mask, loss_mask), temperature=temperature
    )


def row_of_label(loss_mask: Tensor) -> Tensor:
    """Give the row index [N] of each labelled token, in the order `labelled_logprobs` returns them."""
    return loss_mask[:, 1:].nonzero()[:, 0]


def _flattened(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, loss_mask: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Give what a model is called with for padded rows [B, T], where labelled tokens are predicted, and their ids."""
    predicting_mask = torch.zeros_like(loss_mask)
    predicting_mask[:, :-1] = loss_mask[:, 1:]
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if can_pack(model, input_ids.shape[1]):
        inputs = unpad(input_ids, attention_mask)
        predicting_mask = predicting_mask[attention_mask.bool()]
    return inputs, predicting_mask.flatten().nonzero()[:, 0], input_ids[:, 1:][loss_mask[:, 1:]]


def _read(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    predictor_index: Tensor,
    target_ids: Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield log-probs and entropies of one part of the N after another; entropies are empty unless asked for."""

    def read(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        entropies = entropy(logits, temperature=temperature) if with_entropy else logits.new_empty(0)
        return shift_logprobs(logits, ids, temperature=temperature), entropies

    def read_states(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return read(_logits_of(model, inputs, states), ids)

    rows_at_once = max(1, MOST_LOGITS // model.get_output_embeddings().weight.shape[0])
    # Processes that share weights out must call the model equally often.
    if len(target_ids) <= rows_at_once or is_shared_out(model):
        with head_on(model, predictor_index):
            logits = model(**inputs, use_cache=False).logits
        yield read(logits, target_ids)
        return
    states = _states_at(model, inputs, predictor_index)
    for part, ids in zip(*(torch.split(each, rows_at_once) for each in (states, target_ids)), strict=True):
        yield checkpoint(read_states, part, ids, use_reentrant=False)


def _states_at(model: PreTrainedModel, inputs: Mapping[str, Tensor], index: Tensor) -> Tensor:
    """Give the hidden states [N, D] in front of the head at `index` [N], counted row by row."""
    caught: list[Tensor] = []

    def catch(states: Tensor) -> Tensor:
        caught.append(states.index_select(0, index))
        return states[:1]  # the head has to be called with something

    with _before_head(model, catch), read_only_at(model, index):
        model(**inputs, use_cache=False)
    return caught[0]


def _logits_of(model: PreTrainedModel, inputs: Mapping[str, Tensor], states: Tensor) -> Tensor:
    """Give what the model makes of hidden states [N, D] in its head and behind it -> [N, V].

    It is called with one token, whose own state the head never sees.
    """
    with _before_head(model, lambda _: states):
        logits: Tensor = model(input_ids=inputs["input_ids"][:1, :1], use_cache=False).logits
    return logits


@contextmanager
def head_on(model: PreTrainedModel, predictor_index: Tensor) -> Iterator[None]:
    """Let the head see only the hidden states that `predictor_index` [N] counts row by row."""
    take = _before_head(model, lambda states: states.index_select(0, predictor_index))
    with take, read_only_at(model, predictor_index):
        yield


@contextmanager
def _before_head(model: PreTrainedModel, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `change` choose what the head sees: from all hidden states, row by row [B * T, D], to others [N, D]."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (change(inputs[0].flatten(0, 1)), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
