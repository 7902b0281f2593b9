"""Attention of packed rows by matrix products, against the attention of PyTorch under a mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf_cli.algo.packing import layout_of
from rlhf_cli.models import packing
from rlhf_cli.models.products import attend_by_products

LAYOUTS = {
    "one text": [(7,)],
    "two texts": [(7,), (70,)],
    "answers": [(5, 3, 9), (0, 4, 2), (66, 1, 64)],
    "absent answers": [(5, 3, 0), (4, 0, 0), (2, 0, 3)],
    "more queries than at once": [(300, 270, 290), (1,)],
}


def states(num_tokens: int, num_key_heads: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, num_tokens, 8) for heads in (4, num_key_heads, num_key_heads)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def seen_mask(layout: list[tuple[int, ...]]) -> Tensor:
    """Say which tokens each token sees, by the text they belong to [N, N]."""
    texts, prompts = [], []
    for number, sizes in enumerate(layout):
        for answer, size in enumerate(sizes):
            texts += [(number, answer)] * size
            prompts += [(number, 0)] * size
    same = [[theirs in {own, prompt} for theirs in texts] for own, prompt in zip(texts, prompts, strict=True)]
    return torch.tensor(same).tril()


def with_gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Give the result and the gradients of a weighted sum of it."""
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result, *torch.autograd.grad((result * weights).sum(), inputs)]


@pytest.mark.parametrize("num_key_heads", [4, 2, 1])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_results_and_gradients_are_those_of_masked_attention(
    layout: list[tuple[int, ...]], num_key_heads: int
) -> None:
    inputs = states(sum(map(sum, layout)), num_key_heads)
    plain = F.scaled_dot_product_attention(*inputs, seen_mask(layout), enable_gqa=True, scale=0.3)
    expected = with_gradients(plain.transpose(1, 2), inputs)
    found = with_gradients(attend_by_products(*inputs, layout, 0.3), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_in_bf16_they_differ_by_rounding() -> None:
    layout = LAYOUTS["answers"]
    exact = states(sum(map(sum, layout)), 2)
    rounded = states(sum(map(sum, layout)), 2, torch.bfloat16)
    expected = with_gradients(attend_by_products(*exact, layout, 0.3), exact)
    for found, wanted in zip(
        with_gradients(attend_by_products(*rounded, layout, 0.3), rounded), expected, strict=True
    ):
        assert found.dtype == torch.bfloat16
        assert (found.float() - wanted).detach().norm() / wanted.detach().norm() < 0.02


def test_attention_weights_are_not_kept() -> None:
    """Queries, keys and values are: nothing as large as the square of the length."""
    kept: list[int] = []
    inputs = states(300, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda it: kept.append(it.numel()) or it, lambda it: it):
        attend_by_products(*inputs, [(300,)], 0.3)
    assert kept == [4 * 300 * 8] * 3


def test_a_model_that_drops_attention_out_does_so() -> None:
    """Equal values: every output is the sum of the weights that are left, scaled up by 2."""
    zeros, ones = torch.zeros(1, 1, 64, 1), torch.ones(1, 1, 64, 1)
    module = torch.nn.Module()
    module.is_causal = True
    sums = packing._attention(module, zeros, zeros, ones, layout_of([(64,)]), dropout=0.5)[0]
    assert sums[0, :1, 0, 0].item() in (0.0, 2.0)
    assert 0.5 < float(sums[0, 32:].mean()) < 1.5
    assert float(sums[0, 32:].std()) > 0
