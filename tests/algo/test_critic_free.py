"""Critic-free advantages against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.critic_free import leave_one_out, over_tokens, rewards_to_go, standardise_in_group

# Two prompts, three answers each. First: the others' means are 4.5, 4, 0.5. Second: all alike.
REWARDS = torch.tensor([0.0, 1.0, 8.0, 2.0, 2.0, 2.0])


def test_each_answer_is_compared_with_the_others():
    expected = [0 - 4.5, 1 - 4.0, 8 - 0.5, 0.0, 0.0, 0.0]
    assert leave_one_out(REWARDS, 3).tolist() == pytest.approx(expected)


def test_answers_are_measured_in_standard_deviations():
    # mean 3, deviations -3, -2, 5: squares 38, divided by 2 is 19
    std = math.sqrt(19)
    expected = [-3 / std, -2 / std, 5 / std, 0.0, 0.0, 0.0]
    assert standardise_in_group(REWARDS, 3).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("estimate", [leave_one_out, standardise_in_group])
def test_a_shift_of_one_prompts_rewards_changes_nothing(estimate):
    shifted = REWARDS + torch.tensor([5.0] * 3 + [-7.0] * 3)
    torch.testing.assert_close(estimate(shifted, 3), estimate(REWARDS, 3))


def test_tokens_share_their_answers_advantage():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert over_tokens(torch.tensor([2.0, 9.0]), mask).tolist() == [[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]


def test_rewards_to_go_skip_what_is_masked():
    # behind the mask lies NaN; with gamma 1/2: 4, then 2 + 2, then 1 + 2
    rewards = torch.tensor([[1.0, math.nan, 2.0, 4.0, math.nan]])
    mask = torch.tensor([[True, False, True, True, False]])
    assert rewards_to_go(rewards, mask, gamma=0.5).tolist() == [[3.0, 0.0, 4.0, 4.0, 0.0]]
    assert rewards_to_go(rewards, mask, gamma=1.0).tolist() == [[7.0, 0.0, 6.0, 4.0, 0.0]]
