"""KTO against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.kto import kto, kto_gains

GOOD_AND_BAD = torch.tensor([True, False])


def test_a_good_and_a_bad_answer():
    # z_0 = (1 + 0) / 2; gains 2 - 0.5 and 0.5 - (-1): 1.5 both; 1 - sigma(1.5) = 0.182426
    gains = kto_gains(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]), GOOD_AND_BAD, beta=1.0)
    assert gains.tolist() == [1.5, 1.5]
    losses = kto(gains, GOOD_AND_BAD, good_weight=1.0, bad_weight=3.0)
    assert losses.tolist() == pytest.approx([0.182426, 0.547277], abs=1e-6)


def test_a_divergence_below_zero_counts_as_none():
    gains = kto_gains(torch.tensor([2.0, -1.0]), torch.tensor([-4.0, 0.0]), GOOD_AND_BAD, beta=0.5)
    assert gains.tolist() == [1.0, 0.5]


def test_the_policy_that_is_its_reference():
    zero = torch.zeros(2)
    losses = kto(kto_gains(zero, zero, GOOD_AND_BAD, beta=0.1), GOOD_AND_BAD, good_weight=1.0, bad_weight=2.0)
    assert losses.tolist() == [0.5, 1.0]


def test_strangers_carry_no_gradient_and_answers_move_as_labelled():
    logratios = torch.tensor([0.5, 0.5], requires_grad=True)
    strangers = torch.tensor([0.2, 0.4], requires_grad=True)
    gains = kto_gains(logratios, strangers, GOOD_AND_BAD, beta=1.0)
    kto(gains, GOOD_AND_BAD, good_weight=1.0, bad_weight=1.0).sum().backward()
    # d/dr of 1 - sigma(r - z) at r - z = 0.2: -sigma(0.2) sigma(-0.2)
    slope = 1 / (1 + math.exp(-0.2)) / (1 + math.exp(0.2))
    assert logratios.grad is not None
    assert logratios.grad.tolist() == pytest.approx([-slope, slope])
    assert strangers.grad is None
