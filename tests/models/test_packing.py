"""Which models take packed rows, and that padded rows come out the same whether or not they are packed inside."""

import pytest
import torch
from tiny_models import build
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_cli.models.packing import allow_packing, can_pack
from rlhf_cli.models.scoring import labelled_logprobs

IDS = torch.randint(2, 258, (3, 12), generator=torch.Generator().manual_seed(5))
ATTENTION = (torch.arange(12) < torch.tensor([[12], [7], [9]])).long()
LABELS = ATTENTION.bool() & (torch.arange(12) > 2)
REASONS = {
    "mamba": "its attention is eager, not sdpa",
    "lfm2": "packed rows change its hidden states by",
    "gemma2": "its attention is eager, not sdpa",
}


def packed_llama() -> PreTrainedModel:
    model = build()
    assert allow_packing(model) is None
    return model


def gradients(model: PreTrainedModel, loss: Tensor) -> list[Tensor]:
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", REASONS)
def test_models_that_packing_would_change_are_left_alone(name: str) -> None:
    model, untouched = build(name), build(name)
    assert REASONS[name] in str(allow_packing(model))
    assert not can_pack(model, longest=1)
    inputs = {"input_ids": IDS, "attention_mask": ATTENTION}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, untouched(**inputs).logits)


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_a_window_shorter_than_the_rows_forbids_packing(name: str) -> None:
    model = build(name)  # a window of 6
    allow_packing(model)
    assert can_pack(model, longest=6)
    assert not can_pack(model, longest=7)


def test_asking_twice_changes_nothing() -> None:
    model = packed_llama()
    assert allow_packing(model) is None
    assert can_pack(model, longest=12)


def test_padded_rows_give_the_same_logprobs_and_gradients() -> None:
    model, untouched = packed_llama(), build()
    packed, plain = (labelled_logprobs(each, IDS, ATTENTION, LABELS) for each in (model, untouched))
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-5)
    found, expected = gradients(model, packed.sum()), gradients(untouched, plain.sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_packing_model_still_reads_padded_rows_and_writes() -> None:
    model, untouched = packed_llama(), build()
    prompt = {"input_ids": IDS.flip(1), "attention_mask": ATTENTION.flip(1), "do_sample": False}
    written = [each.generate(**prompt, max_new_tokens=5, pad_token_id=1) for each in (model, untouched)]
    assert torch.equal(*written)
