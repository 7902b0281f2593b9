"""Log-probs of labelled tokens, with the language-model head on those positions only.

`[B, T, V]` logits never exist: a hook in front of the head keeps the N hidden states that predict labelled tokens.
What the model does to its logits behind the head (soft caps, scales) still happens, on `[N, V]`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.algo.tensors import entropy, shift_logprobs


@contextmanager
def head_on(model: PreTrainedModel, predicting_mask: Tensor) -> Iterator[None]:
    """Let the head see only hidden states where `predicting_mask` [B, T] is True."""

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][predicting_mask], *inputs[1:])

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
    with head_on(model, predicting_mask):
        output = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    logits: Tensor = output.logits
    return logits


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
