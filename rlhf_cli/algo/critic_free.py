"""Advantages without a critic: from the other answers to the same prompt, or from the whole batch.

Answers to one prompt lie next to each other: with group size K, rows 0 .. K-1 answer the first prompt.
"""

import torch
from torch import Tensor

GROUP_EPSILON = 1e-6


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Compare each answer with the mean of the others to its prompt: rewards [B] -> advantages [B].

    A_i = R_i - (sum_{j != i} R_j) / (K - 1), which is (R_i - mean) K / (K - 1). Ahmadian et al. 2024
    (arXiv 2402.14740), the RLOO estimator, after Kool et al. 2019.
    """
    groups = rewards.view(-1, group_size)
    centered = groups - groups.mean(1, keepdim=True)
    return (centered * group_size / (group_size - 1)).flatten()


def standardise_in_group(rewards: Tensor, group_size: int) -> Tensor:
    """Measure each answer in standard deviations from its prompt's mean: rewards [B] -> advantages [B].

    A_i = (R_i - mean) / (std + 1e-6), std with divisor K - 1; 0 in a group of equal rewards. Shao et al. 2024
    (arXiv 2402.03300) section 4.1.2.
    """
    groups = rewards.view(-1, group_size)
    centered = groups - groups.mean(1, keepdim=True)
    return (centered / (groups.std(1, keepdim=True) + GROUP_EPSILON)).flatten()


def over_tokens(advantages: Tensor, mask: Tensor) -> Tensor:
    """Give every token its answer's advantage: advantages [B], mask [B, T] -> [B, T], 0 under the mask."""
    return advantages.unsqueeze(1) * mask


def rewards_to_go(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Sum the discounted rewards from each token on: two [B, T] -> [B, T].

        G_t = r_t + gamma G_{t+1}

    t + 1 is the next True of the row. With the KL penalty inside the rewards, and standardised over the whole
    batch, these are the advantages of REINFORCE++: Hu 2025 (arXiv 2501.03262).
    """
    rewards = rewards.masked_fill(~mask, 0.0)
    following = rewards.new_zeros(rewards.shape[0])
    columns = []
    for t in reversed(range(rewards.shape[1])):
        following = torch.where(mask[:, t], rewards[:, t] + gamma * following, following)
        columns.append(following)
    return torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0.0)
