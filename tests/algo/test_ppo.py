"""Rewards, advantages, clipped losses and KL control against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.ppo import (
    LOG_RATIO_LIMIT,
    adaptive_kl_coef,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    gae,
    kl_k1,
    kl_k3,
    shaped_rewards,
    truncated_importance,
)

NAN = math.nan
ALL = torch.ones(1, 4, dtype=torch.bool)


def rows(*lists):
    return torch.tensor(lists)


def test_shaped_rewards_put_the_score_on_the_last_token_and_the_kl_on_each():
    # log-ratios 1/2, -1, 0: penalties 0.05, -0.1, 0 at coefficient 0.1; the score 2 joins the third token.
    # The second row is the first moved right by one; the third has no response.
    logprobs = rows([-1.0, -2.0, -3.0, NAN], [NAN, -1.0, -2.0, -3.0], [NAN] * 4)
    reference = rows([-1.5, -1.0, -3.0, NAN], [NAN, -1.5, -1.0, -3.0], [NAN] * 4)
    mask = rows([True, True, True, False], [False, True, True, True], [False] * 4)
    rewards = shaped_rewards(torch.tensor([2.0, 2.0, 9.0]), logprobs, reference, mask, 0.1)
    expected = rows([-0.05, 0.1, 2.0, 0.0], [0.0, -0.05, 0.1, 2.0], [0.0] * 4)
    torch.testing.assert_close(rewards, expected)


def test_shaped_rewards_sum_to_score_minus_kl():
    torch.manual_seed(0)
    scores, logprobs, reference = torch.randn(6), torch.randn(6, 9), torch.randn(6, 9)
    mask = torch.arange(9) < torch.tensor([1, 2, 5, 9, 9, 3]).unsqueeze(1)
    rewards = shaped_rewards(scores, logprobs, reference, mask, 0.3)
    kl = (logprobs - reference).mul(mask).sum(1)
    torch.testing.assert_close(rewards.sum(1), scores - 0.3 * kl)


# gamma = lam = 1/2, rewards 1, 0, 2, values 1/2, 1, 3/2:
#   delta_3 = 2 - 3/2              =  1/2     A_3 =  1/2
#   delta_2 = 0 + 1/2 * 3/2 - 1    = -1/4     A_2 = -1/4 + 1/4 *  1/2 = -1/8
#   delta_1 = 1 + 1/2 * 1   - 1/2  =  1       A_1 =  1   + 1/4 * -1/8 = 31/32
ADVANTAGES, RETURNS = (31 / 32, -1 / 8, 1 / 2), (47 / 32, 7 / 8, 2.0)


def spread(mask, numbers, elsewhere):
    remaining = iter(numbers)
    return torch.tensor([[next(remaining) if counts else elsewhere for counts in mask]])


@pytest.mark.parametrize(
    "mask",
    [
        (True, True, True),
        (True, True, True, False, False),
        (False, False, True, True, True),
        (False, True, False, True, False, True, False),
    ],
)
def test_gae_of_three_tokens_wherever_they_stand(mask):
    rewards, values = spread(mask, (1.0, 0.0, 2.0), NAN), spread(mask, (0.5, 1.0, 1.5), NAN)
    advantages, returns = gae(rewards, values, torch.tensor([mask]), gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, spread(mask, ADVANTAGES, 0.0))
    torch.testing.assert_close(returns, spread(mask, RETURNS, 0.0))


def test_gae_of_an_empty_row_is_zero():
    advantages, returns = gae(rows([NAN, NAN]), rows([NAN, NAN]), rows([False, False]), gamma=1.0, lam=0.95)
    assert advantages.tolist() == returns.tolist() == [[0.0, 0.0]]


def test_gae_at_lam_zero_is_the_one_step_error():
    # 1 + 1 - 1/2, 0 + 3/2 - 1, 2 - 3/2
    advantages, _ = gae(rows([1.0, 0.0, 2.0]), rows([0.5, 1.0, 1.5]), ALL[:, :3], gamma=1.0, lam=0.0)
    assert advantages.tolist() == [[1.5, 0.5, 0.5]]


def test_gae_at_lam_one_is_the_sum_of_rewards_minus_the_value():
    # 3 - 1/2, 2 - 1, 2 - 3/2; the returns forget the values.
    advantages, returns = gae(rows([1.0, 0.0, 2.0]), rows([0.5, 1.0, 1.5]), ALL[:, :3], gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[2.5, 1.0, 0.5]]
    assert returns.tolist() == [[3.0, 2.0, 2.0]]


def test_gae_is_the_discounted_sum_of_one_step_errors():
    torch.manual_seed(0)
    rewards, values = torch.randn(1, 12, dtype=torch.float64), torch.randn(1, 12, dtype=torch.float64)
    advantages, _ = gae(rewards, values, torch.ones(1, 12, dtype=torch.bool), gamma=0.9, lam=0.8)
    v = [*values[0].tolist(), 0.0]
    deltas = [r + 0.9 * v[t + 1] - v[t] for t, r in enumerate(rewards[0].tolist())]
    sums = [sum(0.72**k * delta for k, delta in enumerate(deltas[t:])) for t in range(12)]
    assert advantages[0].tolist() == pytest.approx(sums)


def test_policy_loss_takes_the_worse_of_plain_and_clipped():
    #  ratio  A   plain  bounded by [0.8, 1.2]
    #   1.5   1   -1.5   -1.2   clipped: no more gain in going up
    #   1.5  -1    1.5    1.2   not: it must come back
    #   0.5   1   -0.5   -0.8   not: it must come back
    #   0.5  -1    0.5    0.8   clipped: no more gain in going down
    old = torch.full((1, 4), -1.0)
    logprobs = old + rows([1.5, 1.5, 0.5, 0.5]).log()
    logprobs.requires_grad_()
    losses, clipped = clipped_policy_loss(logprobs, old, rows([1.0, -1.0, 1.0, -1.0]), ALL, clip=0.2)
    assert losses.tolist() == [pytest.approx([-1.2, 1.5, -0.5, 0.8])]
    assert clipped.tolist() == [[True, False, False, True]]
    losses.sum().backward()
    assert logprobs.grad.tolist() == [pytest.approx([0.0, 1.5, -0.5, 0.0])]


def test_policy_loss_of_the_policy_that_sampled_has_the_policy_gradient():
    advantages = rows([2.0, -3.0, 0.5, 0.0])
    logprobs = torch.full((1, 4), -2.0, requires_grad=True)
    losses, clipped = clipped_policy_loss(logprobs, logprobs.detach(), advantages, ALL, clip=0.2)
    losses.sum().backward()
    assert torch.equal(losses, -advantages)
    assert torch.equal(logprobs.grad, -advantages)
    assert not clipped.any()


def test_policy_loss_bounds_a_runaway_ratio():
    logprobs = torch.tensor([[0.0]], requires_grad=True)
    losses, _ = clipped_policy_loss(logprobs, rows([-500.0]), rows([-1.0]), ALL[:, :1], clip=0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(math.exp(LOG_RATIO_LIMIT))
    assert logprobs.grad.item() == 0.0


def test_value_loss_takes_the_worse_of_plain_and_clipped():
    #  V   V_old   R    plain    moved by at most 0.2
    #  1     0     2    1        (0.2 - 2)^2   = 3.24   clipped: far enough already
    #  1     0    1/2   1/4      (0.2 - 1/2)^2 = 0.09   not
    #  0.1   0     1    0.81     0.81                   not: inside
    #  -1    0    -2    1        (-0.2 + 2)^2  = 3.24   clipped
    values = rows([1.0, 1.0, 0.1, -1.0]).requires_grad_()
    losses, clipped = clipped_value_loss(
        values, torch.zeros(1, 4), rows([2.0, 0.5, 1.0, -2.0]), ALL, clip=0.2
    )
    assert losses.tolist() == [pytest.approx([1.62, 0.125, 0.405, 1.62])]
    assert clipped.tolist() == [[True, False, False, True]]
    losses.sum().backward()
    assert values.grad.tolist() == [pytest.approx([0.0, 0.5, -0.9, 0.0])]


@pytest.mark.parametrize("loss", [clipped_policy_loss, clipped_value_loss])
def test_losses_and_their_gradients_stop_at_the_mask(loss):
    mask = rows([True, False])
    trained = rows([0.5, NAN]).requires_grad_()
    losses, clipped = loss(trained, rows([0.0, NAN]), rows([1.0, NAN]), mask, clip=0.2)
    losses.sum().backward()
    assert losses[0, 0].isfinite()
    assert losses[0, 1] == 0.0
    assert not clipped[0, 1]
    assert trained.grad[0, 1] == 0.0


@pytest.mark.parametrize("loss", [clipped_policy_loss, clipped_value_loss])
def test_gradients_are_those_of_finite_differences(loss):
    torch.manual_seed(0)
    trained, old, target = torch.randn(3, 2, 5, dtype=torch.float64)
    mask = torch.rand(2, 5) < 0.8
    assert torch.autograd.gradcheck(
        lambda x: loss(x, old, target, mask, clip=0.2)[0], trained.requires_grad_()
    )


def test_kl_estimators_at_a_ratio_of_two():
    # d = log 2: k1 = log 2, k3 = 1/2 - 1 + log 2; d = -log 2: k1 = -log 2, k3 = 2 - 1 - log 2
    logprobs, reference = rows([0.0, math.log(0.5), NAN]), rows([math.log(0.5), 0.0, NAN])
    mask = rows([True, True, False])
    log_2 = math.log(2)
    assert kl_k1(logprobs, reference, mask).tolist() == [pytest.approx([log_2, -log_2, 0.0])]
    assert kl_k3(logprobs, reference, mask).tolist() == [pytest.approx([log_2 - 0.5, 1 - log_2, 0.0])]


def test_kl_estimators_average_to_the_kl_under_the_policy():
    # pi = (3/4, 1/4) against (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2
    policy, reference = rows([0.75, 0.25]), rows([0.5, 0.5])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for estimator in (kl_k1, kl_k3):
        estimate = (policy * estimator(policy.log(), reference.log(), ALL[:, :2])).sum().item()
        assert estimate == pytest.approx(expected, abs=1e-6)


def test_k3_of_a_tiny_difference_is_half_its_square():
    # Spelled exp(-d) - 1 + d it would be 0 or 6e-8 in fp32.
    assert kl_k3(rows([1e-3]), rows([0.0]), ALL[:, :1]).item() == pytest.approx(5e-7, rel=0.05)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (6.0, 0.1),
        # 10 % above target: 0.1 * (1 + 0.1 * 500 / 10000); 100 % above and below: capped at 0.2
        (6.6, 0.1005),
        (12.0, 0.101),
        (0.0, 0.099),
        (-50.0, 0.099),
    ],
)
def test_adaptive_kl_coef_moves_towards_the_target(observed, expected):
    assert adaptive_kl_coef(0.1, observed, target=6.0, horizon=10_000, num_samples=500) == pytest.approx(
        expected
    )


def test_explained_variance():
    # Residuals 0, 0, -1 have variance 1/3 - 1/9 = 2/9; returns 1, 2, 3 have 2/3.
    returns, mask = rows([1.0, 2.0, 3.0, NAN]), rows([True, True, True, False])
    assert explained_variance(rows([1.0, 2.0, 4.0, NAN]), returns, mask).item() == pytest.approx(2 / 3)
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full((1, 4), 5.0), returns, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(returns, torch.full((1, 4), 5.0), mask).item() == 0.0


def test_truncated_importance_caps_what_the_sampler_underrated():
    # p/q = 1, 1/2, 4: the last is cut to 2
    weights = truncated_importance(torch.tensor([0.0, -math.log(2), math.log(4)]), cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.5, 2.0]))
