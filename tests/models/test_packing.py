"""Which models take packed rows, and that padded rows come out the same whether or not they are packed inside."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_cli.models import packing
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


@pytest.mark.parametrize(("num_queries", "num_keys"), [(7, 7), (300, 300), (300, 411), (1, 5)])
def test_attention_by_products_is_attention(num_queries: int, num_keys: int) -> None:
    """In fp32, where both can be compared; longer than the queries that are worked on at once."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, num_queries, 8, generator=generator).requires_grad_()
    key, value = (torch.randn(1, 2, num_keys, 8, generator=generator).requires_grad_() for _ in range(2))
    seen_mask = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    expected = F.scaled_dot_product_attention(query, key, value, seen_mask, enable_gqa=True, scale=0.3)
    found = packing._attend_by_products(torch.nn.Module(), query, key, value, scaling=0.3)
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=0, atol=1e-5)
    weights = torch.randn(expected.shape, generator=generator)
    ours = torch.autograd.grad((found.transpose(1, 2) * weights).sum(), (query, key, value))
    plain = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)


def test_attention_by_products_drops_out() -> None:
    """Equal values: every output is the sum of the weights that are left, scaled up by 2."""
    states, ones = torch.zeros(1, 1, 64, 1), torch.ones(1, 1, 64, 1)
    sums = packing._attend_by_products(torch.nn.Module(), states, states, ones, dropout=0.5)[0, :, 0, 0]
    assert sums[:1].item() in (0.0, 2.0)
    assert 0.5 < float(sums[32:].mean()) < 1.5
    assert float(sums.std()) > 0
