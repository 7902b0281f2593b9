"""Attention from single tokens against the attention of PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import MODELS
from torch import Tensor

from rlhf_cli.models import decoding
from rlhf_cli.models.decoding import attend, attend_from_one, attending_from_one

HEADS = {"a key head each": (4, 4), "shared by two": (4, 2), "shared by all": (4, 1)}


def states(num_rows: int, heads: tuple[int, int], num_columns: int) -> list[Tensor]:
    """Make a query, and keys and values that are a part of larger tensors, as a cache's are."""
    generator = torch.Generator().manual_seed(0)
    num_heads, num_key_heads = heads
    query = torch.randn(num_rows, num_heads, 1, 8, generator=generator)
    rooms = [torch.randn(num_rows, num_key_heads, num_columns + 5, 8, generator=generator) for _ in range(2)]
    return [query, *(room[:, :, 2 : 2 + num_columns] for room in rooms)]


def mask_from(starts: list[int], num_columns: int) -> Tensor:
    return (torch.arange(num_columns) >= torch.tensor(starts)[:, None])[:, None, None]


@pytest.mark.parametrize("at_once", [1, 2**20], ids=["row by row", "all rows at once"])
@pytest.mark.parametrize("starts", [None, [0, 3, 8], [4, 6, 8]], ids=["all seen", "from 0", "none at 0"])
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS.keys())
def test_it_is_masked_attention(heads, starts, at_once, monkeypatch):
    monkeypatch.setattr(decoding, "_ELEMENTS_AT_ONCE", at_once)
    query, key, value = states(3, heads, 9)
    mask = None if starts is None else mask_from(starts, 9)
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(attend_from_one(query, key, value, mask, 0.3), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS.keys())
def test_in_bf16_it_differs_by_rounding(heads):
    exact = states(3, heads, 50)
    rounded = [each.bfloat16() for each in exact]
    mask = mask_from([0, 3, 48], 50)
    found = attend_from_one(*rounded, mask, 0.3)
    expected = F.scaled_dot_product_attention(*exact, mask, scale=0.3, enable_gqa=True)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 0.01


def is_by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, monkeypatch, **kwargs) -> bool:
    """Say whether `attend` does it itself, and not PyTorch."""
    calls: list[int] = []
    monkeypatch.setattr(decoding, "attend_from_one", lambda query, *_: calls.append(1) or query)
    monkeypatch.setattr(decoding, "sdpa_attention_forward", lambda *_, **__: (query, None))
    with torch.no_grad():
        attend(torch.nn.Module(), query, key, value, mask, **kwargs)
    return bool(calls)


def test_only_large_plain_steps_are_taken_by_hand(monkeypatch):
    query, key, value = states(256, (4, 4), 64)  # 2**19 products
    mask = mask_from([3] * 256, 64)
    assert is_by_hand(query, key, value, mask, monkeypatch, scaling=0.3, dropout=0.0)
    assert is_by_hand(query, key, value, None, monkeypatch)
    assert not is_by_hand(query[:255], key[:255], value[:255], None, monkeypatch)
    assert not is_by_hand(query.expand(-1, -1, 2, -1), key, value, None, monkeypatch)
    assert not is_by_hand(query, key, value, mask.float(), monkeypatch)
    assert not is_by_hand(query, key, value, mask, monkeypatch, dropout=0.1)
    assert not is_by_hand(query, key, value, mask, monkeypatch, position_bias=mask.float())


def test_a_step_that_is_learnt_from_is_not_taken_by_hand(monkeypatch):
    monkeypatch.setattr(decoding, "_LEAST_ELEMENTS", 0)
    monkeypatch.setattr(decoding, "attend_from_one", None)
    query, key, value = states(3, (4, 4), 9)
    result, _ = attend(torch.nn.Module(), query.requires_grad_(), key, value, None)
    assert result.requires_grad


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_model_has_its_attention_back_afterwards(name):
    model = MODELS[name]()
    before = model.config._attn_implementation
    with attending_from_one(model):
        assert (model.config._attn_implementation == "rlhf_decoding") == (before == "sdpa")
    assert model.config._attn_implementation == before
