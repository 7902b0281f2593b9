"""The length-controlled win rate: what it must be where the answer is known."""

import math

import pytest
import torch

from rlhf_cli.algo.win_rate import length_controlled


def test_without_a_difference_in_length_it_is_the_win_rate():
    wins = torch.tensor([1.0, 1.0, 0.0, 0.5] * 50)  # so many that the ridge does not show
    assert length_controlled(wins, torch.zeros(200)) == pytest.approx(2.5 / 4, abs=1e-4)


def test_a_judge_that_only_measures_length_makes_it_one_half():
    lengths = torch.linspace(-30, 70, 200)  # A is longer by 20 on average, and wins where it is longer
    wins = (lengths > 0).double()
    assert wins.mean() == pytest.approx(0.7, abs=0.01)
    assert length_controlled(wins, lengths) == pytest.approx(0.5, abs=0.03)


def test_it_agrees_with_another_optimizer():
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(300, generator=generator, dtype=torch.float64) * 9 + 4
    scaled = torch.tanh(d / d.square().mean().sqrt())
    wins = torch.bernoulli(torch.sigmoid(0.4 + 0.8 * scaled), generator=generator)
    coefficients = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=200, tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = coefficients[0] + coefficients[1] * scaled
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, wins, reduction="sum")
        value = value + 0.5e-2 * coefficients.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    expected = float(torch.sigmoid(coefficients.detach()[0]))
    assert length_controlled(wins, d) == pytest.approx(expected, abs=1e-6)
    assert 0.5 < expected < 0.7


def test_weights_count_comparisons():
    wins, d = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([3.0, 5.0, 3.0])
    twice = length_controlled(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 5.0]), torch.tensor([2.0, 1.0]))
    # The scale of d is that of all rows, so give both the same one.
    assert twice == pytest.approx(length_controlled(wins, d), abs=0.02)


def test_all_wins_and_none():
    assert 0.9 < length_controlled(torch.ones(50), torch.randn(50)) <= 1.0
    assert math.isnan(length_controlled(torch.zeros(0), torch.zeros(0)))
