"""SimPO and ORPO against values worked by hand, and the gradients that define them."""

import math

import pytest
import torch

from rlhf_cli.algo.reference_free import orpo, simpo


def test_simpo_of_a_worked_pair():
    # 2 (-1 + 1.5) - 0.5 = 0.5, and log(1 + e^-0.5) = 0.474077
    losses = simpo(torch.tensor([-1.0]), torch.tensor([-1.5]), beta=2.0, target_margin=0.5)
    assert losses.item() == pytest.approx(0.474077, abs=1e-6)


def test_orpo_of_a_worked_pair():
    # p = 1/2 and 1/4: odds 1 and 1/3, log 3 apart; l(log 3) = log(4/3); -c = log 2
    chosen, rejected = torch.tensor([math.log(1 / 2)]), torch.tensor([math.log(1 / 4)])
    expected = math.log(2) + 0.3 * math.log(4 / 3)
    assert orpo(chosen, rejected, beta=0.3).item() == pytest.approx(expected, abs=1e-6)


def test_orpo_without_its_ratio_is_supervised():
    chosen = torch.tensor([-0.7, -2.0])
    assert torch.equal(orpo(chosen, torch.tensor([-1.0, -0.1]), beta=0.0), -chosen)


def test_equal_answers_stand_at_log_two():
    same = torch.tensor([-0.5, -3.0])
    assert simpo(same, same, beta=1.0, target_margin=0.0).tolist() == pytest.approx([math.log(2)] * 2)
    assert (orpo(same, same, beta=1.0) + same).tolist() == pytest.approx([math.log(2)] * 2)


@pytest.mark.parametrize(
    "loss", [lambda c, r: simpo(c, r, beta=1.0, target_margin=0.1), lambda c, r: orpo(c, r, beta=1.0)]
)
def test_gradients_push_chosen_up_and_rejected_down(loss):
    chosen = torch.tensor([-0.2, -5.0], requires_grad=True)
    rejected = torch.tensor([-4.0, -0.3], requires_grad=True)
    loss(chosen, rejected).sum().backward()
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()


def test_a_certain_answer_keeps_orpo_finite():
    certain = torch.zeros(1, requires_grad=True)
    loss = orpo(certain, torch.tensor([-1.0]), beta=1.0) + orpo(torch.tensor([-1.0]), certain, beta=1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(certain.grad).all()
