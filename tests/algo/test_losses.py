"""The SFT and Bradley-Terry losses against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.losses import bradley_terry, sft_loss

LOG_3 = math.log(3)


def test_sft_loss_is_the_sum_of_negative_logprobs():
    logprobs = torch.tensor([math.log(1 / 2), math.log(1 / 4)])
    # log 2 + log 4 = log 8; weighted 1 and 3: log 2 + 3 log 4 = log 128
    assert sft_loss(logprobs).item() == pytest.approx(math.log(8))
    assert sft_loss(logprobs, torch.tensor([1.0, 3.0])).item() == pytest.approx(math.log(128))


def pair_loss(chosen, rejected, *, p=1.0, margin=0.0, center=0.0, label_smoothing=0.0):
    return bradley_terry(
        torch.tensor([chosen]),
        torch.tensor([rejected]),
        p_chosen=torch.tensor([p]),
        margin=torch.tensor([margin]),
        center=center,
        label_smoothing=label_smoothing,
    ).item()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # d = log 3, sigma(d) = 3/4: -log 3/4; as soft label p: -p log 3/4 - (1 - p) log 1/4
        ({}, math.log(4 / 3)),
        ({"p": 0.0}, math.log(4)),
        ({"p": 0.5}, 0.5 * math.log(4 / 3) + 0.5 * math.log(4)),
        ({"label_smoothing": 0.1}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),
        # p = 0.8 smoothed by 0.1: 0.9 * 0.8 + 0.1 * 0.2 = 0.74
        ({"p": 0.8, "label_smoothing": 0.1}, 0.74 * math.log(4 / 3) + 0.26 * math.log(4)),
        # margin 2 log 3 turns d into -log 3
        ({"margin": 2 * LOG_3}, math.log(4)),
        # scores log 3 + 1 and 1: (log 3 + 2)^2 added, times 0.01
        ({"center": 0.01}, math.log(4 / 3) + 0.01 * (LOG_3 + 2) ** 2),
    ],
)
def test_bradley_terry_at_a_difference_of_log_3(options, expected):
    assert pair_loss(LOG_3 + 1.0, 1.0, **options) == pytest.approx(expected, abs=1e-6)


def test_a_tie_is_least_at_equal_scores():
    assert pair_loss(2.0, 2.0, p=0.5) == pytest.approx(math.log(2))
    assert pair_loss(2.0, 2.1, p=0.5) > pair_loss(2.0, 2.0, p=0.5) < pair_loss(2.1, 2.0, p=0.5)


def test_far_apart_scores_stay_finite():
    assert pair_loss(1e4, -1e4) == 0.0
    assert pair_loss(-1e4, 1e4) == pytest.approx(2e4)


def test_swapping_the_pair_and_its_label_changes_nothing():
    torch.manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 16)
    p = torch.rand(16)
    options = {"center": 0.05, "label_smoothing": 0.2}
    there = bradley_terry(chosen, rejected, p_chosen=p, margin=margin, **options)
    back = bradley_terry(rejected, chosen, p_chosen=1 - p, margin=-margin, **options)
    torch.testing.assert_close(there, back)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 4, dtype=torch.float64)
    p = torch.rand(4, dtype=torch.float64)

    def loss(chosen, rejected):
        options = {"p_chosen": p, "margin": margin, "center": 0.1, "label_smoothing": 0.1}
        return bradley_terry(chosen, rejected, **options)

    assert torch.autograd.gradcheck(loss, (chosen.requires_grad_(), rejected.requires_grad_()))
