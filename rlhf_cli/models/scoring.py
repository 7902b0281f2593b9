"""Log-probs of labelled tokens, with the language-model head on those positions only.

`[B, T, V]` logits never exist: a hook in front of the head keeps the N hidden states that predict labelled tokens.
What the model does to its logits behind the head (soft caps, scales) still happens, on `[N, V]`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.algo.tensors import entropy, shift_logprobs
from rlhf_cli.models.packing import can_pack, unpad


@contextmanager
def head_on(model: PreTrainedModel, predictor_index: Tensor) -> Iterator[None]:
    """Let the head see only the hidden states that `predictor_index` [N] counts row by row."""

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, predictor_index), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def labelled_logits(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, loss_mask: Tensor
) -> Tensor:
    """Give the logits [N, V] that predict the N tokens where `loss_mask` [B, T] is True, in row-major order."""
    predicting_mask = torch.zeros_like(loss_mask)
    predicting_mask[:, :-1] = loss_mask[:, 1:]
    if can_pack(model, input_ids.shape[1]):
        inputs = unpad(input_ids, attention_mask)
        predicting_mask = predicting_mask[attention_mask.bool()][None]
    else:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    with head_on(model, predicting_mask.flatten().nonzero()[:, 0]):
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


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
    with head_on(model, predictor_index):
        logits: Tensor = model(**inputs, use_cache=False).logits
    return shift_logprobs(logits, target_ids, temperature=temperature)


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
    logits = labelled_logits(model, input_ids, attention_mask, loss_mask)
    return shift_logprobs(logits, input_ids[:, 1:][loss_mask[:, 1:]], temperature=temperature)


def labelled_logprobs_and_entropy(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    loss_mask: Tensor,
    *,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Give log-probs [N] as above, and the detached entropy [N] in nats of each predicting distribution."""
    logits = labelled_logits(model, input_ids, attention_mask, loss_mask)
    logprobs = shift_logprobs(logits, input_ids[:, 1:][loss_mask[:, 1:]], temperature=temperature)
    return logprobs, entropy(logits, temperature=temperature)


def row_of_label(loss_mask: Tensor) -> Tensor:
    """Give the row index [N] of each labelled token, in the order `labelled_logprobs` returns them."""
    return loss_mask[:, 1:].nonzero()[:, 0]
