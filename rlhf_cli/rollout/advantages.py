"""From scores and log-probs to advantages, by the estimator of the configuration. N answers, R response columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rlhf_cli.algo import critic_free, ppo
from rlhf_cli.algo.tensors import whiten
from rlhf_cli.config.sections import Ppo


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much better than expected each token was [N, R], and what a critic should have said [N, R], if there is one.

    `loss_kl_coef` is the price of divergence that the loss still has to charge, 0 where the rewards contain it.
    """

    advantages: Tensor
    returns: Tensor | None = None
    loss_kl_coef: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates advantages; `group_size` answers to one prompt lie next to each other."""

    settings: Ppo
    group_size: int

    def __call__(
        self,
        scores: Tensor,
        logprobs: Tensor,
        reference_logprobs: Tensor,
        values: Tensor | None,
        mask: Tensor,
        kl_coef: float,
    ) -> Estimate:
        """Estimate from scores [N] and what was measured, all [N, R]; `values` is there with `gae` alone."""
        rewards = ppo.shaped_rewards(scores, logprobs, reference_logprobs, mask, kl_coef)
        match self.settings.advantage:
            case "gae":
                assert values is not None
                return self._with_critic(rewards, values, mask)
            case "rloo":
                advantages = critic_free.leave_one_out(rewards.sum(1), self.group_size)
                return Estimate(critic_free.over_tokens(advantages, mask))
            case "grpo":
                advantages = critic_free.standardise_in_group(scores, self.group_size)
                return Estimate(critic_free.over_tokens(advantages, mask), loss_kl_coef=kl_coef)
            case "reinforce++":
                to_go = critic_free.rewards_to_go(rewards, mask, gamma=self.settings.gamma)
                return Estimate(whiten(to_go, mask))

    def _with_critic(self, rewards: Tensor, values: Tensor, mask: Tensor) -> Estimate:
        settings = self.settings
        advantages, returns = ppo.gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
        facts = {"explained_variance": float(ppo.explained_variance(values, returns, mask))}
        return Estimate(whiten(advantages, mask) if settings.whiten else advantages, returns, facts=facts)
