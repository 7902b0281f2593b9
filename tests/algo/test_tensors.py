"""Masked reductions and token log-probabilities against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.tensors import (
    entropy,
    masked_mean,
    masked_moments,
    masked_sum,
    segment_sum,
    shift_logprobs,
    whiten,
)

NAN = math.nan
# softmax([0, log 3]) = [1/4, 3/4]
QUARTERS = [0.0, math.log(3)]


def test_shift_logprobs_are_the_logs_of_the_softmax():
    logprobs = shift_logprobs(torch.tensor([QUARTERS, QUARTERS]), torch.tensor([0, 1]))
    assert logprobs.tolist() == pytest.approx([math.log(1 / 4), math.log(3 / 4)], abs=1e-6)


def test_shift_logprobs_divide_by_the_temperature_before_the_softmax():
    logits = torch.tensor([[0.0, 2 * math.log(3)]])
    logprobs = shift_logprobs(logits, torch.tensor([1]), temperature=2.0)
    assert logprobs.item() == pytest.approx(math.log(3 / 4), abs=1e-6)


def test_shift_logprobs_are_fp32_for_bf16_logits():
    # 2 and 1 are exact in bf16; log sigmoid(-1) = -1.3132617 is not: there it is -1.3125.
    logprobs = shift_logprobs(torch.tensor([[2.0, 1.0]], dtype=torch.bfloat16), torch.tensor([1]))
    assert logprobs.dtype == torch.float32
    assert logprobs.item() == pytest.approx(-1.3132617, abs=1e-6)


def test_shift_logprobs_survive_large_logits():
    logprobs = shift_logprobs(torch.tensor([[1e4, 0.0]]), torch.tensor([0]))
    assert logprobs.item() == 0.0


def test_gradient_of_a_logprob_is_one_hot_minus_softmax():
    logits = torch.tensor([QUARTERS], requires_grad=True)
    shift_logprobs(logits, torch.tensor([0])).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([1 - 1 / 4, -3 / 4], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shift_logprobs_are_those_of_log_softmax(temperature: float, dtype: torch.dtype):
    """600 rows: more than are worked on at once."""
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(600, 7, generator=generator)).to(dtype)
    ids = torch.randint(0, 7, (600,), generator=generator)
    weights = torch.randn(600, generator=generator)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = shift_logprobs(ours, ids, temperature=temperature)
    expected = (plain.float() / temperature).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(
        ours.grad, plain.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=5e-6
    )


def test_shift_logprobs_of_nothing():
    logits = torch.zeros(0, 5, requires_grad=True)
    logprobs = shift_logprobs(logits, torch.zeros(0, dtype=torch.long))
    logprobs.sum().backward()
    assert logprobs.shape == (0,)
    assert logits.grad is not None


def test_entropy_of_known_distributions():
    # log 4 - 3/4 log 3 for (1/4, 3/4); log 4 for four equal; log 2 when -inf leaves two equal.
    assert entropy(torch.tensor([QUARTERS])).item() == pytest.approx(
        math.log(4) - 0.75 * math.log(3), abs=1e-6
    )
    assert entropy(torch.zeros(1, 4)).item() == pytest.approx(math.log(4), abs=1e-6)
    banned = torch.tensor([[0.0, -math.inf, 0.0]])
    assert entropy(banned).item() == pytest.approx(math.log(2), abs=1e-6)


def test_entropy_at_a_temperature():
    halved = torch.tensor([[0.0, 2 * math.log(3)]])
    expected = entropy(torch.tensor([QUARTERS])).item()
    assert entropy(halved, temperature=2.0).item() == pytest.approx(expected, abs=1e-6)


def test_masked_reductions_never_read_what_the_mask_hides():
    values = torch.tensor([[1.0, 5.0, NAN], [math.inf, 3.0, NAN]])
    mask = torch.tensor([[True, True, False], [False, True, False]])
    assert masked_sum(values, mask).item() == 9.0
    assert masked_mean(values, mask).item() == 3.0
    # Around 3: 4, 4, 0; divided by 3, not by 2.
    mean, variance = masked_moments(values, mask)
    assert mean.item() == 3.0
    assert variance.item() == pytest.approx(8 / 3)


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.tensor([NAN]), torch.tensor([False])).item() == 0.0


def test_masked_sum_passes_no_gradient_through_the_mask():
    values = torch.tensor([2.0, NAN], requires_grad=True)
    masked_sum(values, torch.tensor([True, False])).backward()
    assert values.grad.tolist() == [1.0, 0.0]


def test_whiten_one_and_three():
    # mean 2, variance 1
    values, mask = torch.tensor([1.0, 3.0, NAN]), torch.tensor([True, True, False])
    assert whiten(values, mask).tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-6)
    assert whiten(values, mask, keep_mean=True).tolist() == pytest.approx([1.0, 3.0, 0.0], abs=1e-6)


def test_whiten_of_a_constant_is_zero():
    assert whiten(torch.full((3,), 7.0), torch.ones(3, dtype=torch.bool)).tolist() == [0.0, 0.0, 0.0]


def test_whiten_a_share_with_the_moments_of_the_whole():
    values, mask = torch.randn(4, 6), torch.rand(4, 6) < 0.7
    moments = masked_moments(values, mask)
    halves = [whiten(values[rows], mask[rows], moments=moments) for rows in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat(halves), whiten(values, mask))


@pytest.mark.parametrize("keep_mean", [False, True])
def test_whiten_reaches_its_moments(keep_mean):
    torch.manual_seed(0)
    values, mask = 5 + 3 * torch.randn(8, 32), torch.rand(8, 32) < 0.5
    before, _ = masked_moments(values, mask)
    mean, variance = masked_moments(whiten(values, mask, keep_mean=keep_mean), mask)
    assert mean.item() == pytest.approx(before.item() if keep_mean else 0.0, abs=1e-5)
    assert variance.item() == pytest.approx(1.0, abs=1e-5)


def test_segment_sum_adds_by_row_and_leaves_unnamed_rows_at_zero():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = segment_sum(values, torch.tensor([2, 0, 2, 0]), 4)
    assert sums.tolist() == [10.0, 0.0, 5.0, 0.0]
    (sums * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert values.grad.tolist() == [100.0, 1.0, 100.0, 1.0]
