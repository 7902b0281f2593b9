"""Proximal policy optimisation on responses: reward shaping, advantages, clipped losses, KL control.

All tensors are [B, T], one column per token; `mask` is True on response tokens. Results are 0 elsewhere.
"""

import torch
from torch import Tensor

from rlhf_cli.algo.tensors import masked_moments

# exp(20) is 5e8: a ratio beyond it is a broken run, and fp32 must survive until a guard reports it.
# The gradient through a clamped log-ratio is 0.
LOG_RATIO_LIMIT = 20.0
ADAPTIVE_KL_CLIP = 0.2


def shaped_rewards(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """Spread the KL penalty over tokens and put the score on the last one: scores [B], rest [B, T] -> [B, T].

    r_t = -kl_coef (log pi(y_t) - log pi_ref(y_t)) + score [t is the last True of its row].
    A row without a True gets no score. Ziegler et al. 2019 (arXiv 1909.08593) eq. 2, per token.
    """
    penalty = kl_coef * kl_k1(logprobs, reference_logprobs, mask)
    return scores.unsqueeze(1) * _last_true(mask) - penalty


def _last_true(mask: Tensor) -> Tensor:
    num_from_here = mask.flip(1).cumsum(1).flip(1)
    return mask & (num_from_here == 1)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Estimate (advantages, returns), returns = advantages + values: three [B, T] -> two [B, T].

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}

    V and A are 0 behind the last token. t + 1 is the next True of the row: what lies under False is not
    a step in time. Schulman et al. 2015 (arXiv 1506.02438) eq. 16; Schulman et al. 2017
    (arXiv 1707.06347) eqs. 11-12.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    next_value = next_advantage = values.new_zeros(values.shape[0])
    columns = []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(mask[:, t], delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        columns.append(next_advantage)
    advantages = torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0.0)
    return advantages, advantages + values


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Return (loss per token, True where the clip decides): four [B, T] -> two [B, T].

        rho_t = exp(log pi(y_t) - log pi_old(y_t))
        L_t = max(-A_t rho_t, -A_t clamp(rho_t, 1 - clip, 1 + clip))

    Schulman et al. 2017 (arXiv 1707.06347) eq. 7, negated. The log-ratio is clamped to LOG_RATIO_LIMIT.
    """
    ratio = torch.exp(_log_ratio(logprobs, old_logprobs, mask))
    advantages = advantages.masked_fill(~mask, 0.0)
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, bounded), bounded > plain


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Return (loss per token, True where the clip decides): four [B, T] -> two [B, T].

        L_t = max((V_t - R_t)^2, (clamp(V_t, V_old_t - clip, V_old_t + clip) - R_t)^2) / 2

    Engstrom et al. 2020 (arXiv 2005.12729) section 3, halved so that the gradient is V_t - R_t.
    """
    near_old = values.clamp(old_values - clip, old_values + clip)
    plain = (values - returns).masked_fill(~mask, 0.0).square()
    bounded = (near_old - returns).masked_fill(~mask, 0.0).square()
    return 0.5 * torch.maximum(plain, bounded), bounded > plain


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) per token as log pi - log pi_ref: three [B, T] -> [B, T], any sign.

    Unbiased for tokens drawn from pi. Schulman 2020, "Approximating KL divergence".
    """
    return _log_ratio(logprobs, reference_logprobs, mask)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) per token as exp(-d) - 1 + d, d = log pi - log pi_ref: [B, T], >= 0.

    Unbiased for tokens drawn from pi, with less variance than k1. Schulman 2020, as above.
    """
    difference = _log_ratio(logprobs, reference_logprobs, mask)
    return torch.expm1(-difference) + difference


def _log_ratio(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    difference = (logprobs - other_logprobs).masked_fill(~mask, 0.0)
    return difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def adaptive_kl_coef(coef: float, observed_kl: float, target: float, horizon: int, num_samples: int) -> float:
    """Move the KL coefficient towards holding `observed_kl` at `target`, both in nats per response.

    coef * (1 + clamp(observed / target - 1, -0.2, 0.2) num_samples / horizon), where `num_samples` is
    the number of responses since the last call; positive while num_samples < 5 horizon.
    Ziegler et al. 2019 (arXiv 1909.08593) section 2.2, whose K_beta is num_samples / horizon.
    """
    error = min(max(observed_kl / target - 1, -ADAPTIVE_KL_CLIP), ADAPTIVE_KL_CLIP)
    return coef * (1 + error * num_samples / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns) over the masked tokens: three [B, T] -> [].

    1 is a perfect critic, 0 one as good as a constant; 0 as well where the returns do not vary.
    """
    _, residual = masked_moments(returns - values, mask)
    _, total = masked_moments(returns, mask)
    return torch.where(total > 0, 1 - residual / total, torch.zeros_like(total))


def truncated_importance(log_ratio: Tensor, *, cap: float) -> Tensor:
    """Weigh tokens that another distribution has sampled: min(p / q, cap), any shape -> same, without gradient.

    `log_ratio` is log p - log q, where p is the distribution that is trained and q the one that sampled. Truncating
    bounds the variance at the price of a bias (Ionides 2008; for a sampler and a trainer that differ by their
    arithmetic: Yao et al. 2025).
    """
    return log_ratio.detach().exp().clamp(max=cap)
