"""The models of PPO, asked about responses: policy, reference and critic, each answering in response columns.

B rows, T tokens, R columns: column j is the j-th response token of its row. `response_mask` [B, T] is True on
response tokens; `columns` [B, R] is True where a row has a j-th one.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from rlhf_cli.config.sections import Model
from rlhf_cli.models.device import Autocast, autocast_for, disable_dropout, num_parameters
from rlhf_cli.models.heads import Critic, RewardModel, open_critic
from rlhf_cli.models.load import LoadedModel, load_frozen, load_reference
from rlhf_cli.models.locate import locate
from rlhf_cli.models.scoring import labelled_logprobs, labelled_logprobs_and_entropy

if TYPE_CHECKING:
    from peft import PeftModel


class ActorCritic:
    """A policy, the reference it is held to, and a critic.

    `reference` None means the policy with its adapters off: one copy of the weights. `exact` says that the forward
    pass runs in fp32, so that the same weights give the same log-probs.
    """

    def __init__(
        self,
        policy: LoadedModel,
        reference: LoadedModel | None,
        critic: Critic,
        *,
        autocast: Autocast,
        temperature: float,
    ) -> None:
        self.policy = policy
        self.critic = critic
        self.exact = autocast is nullcontext
        self.reference = reference
        self.autocast = autocast
        self._temperature = temperature

    def logprobs(self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
        """Give the policy's log-probs of response tokens [B, R] in nats, 0 where none is."""
        with self.autocast():
            logprobs = labelled_logprobs(
                self.policy.model, input_ids, attention_mask, response_mask, temperature=self._temperature
            )
        return to_columns(logprobs, response_columns(response_mask))

    def logprobs_and_entropy(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give the policy's log-probs as above, and the detached entropies of the same columns [B, R] in nats."""
        with self.autocast():
            logprobs, entropy = labelled_logprobs_and_entropy(
                self.policy.model, input_ids, attention_mask, response_mask, temperature=self._temperature
            )
        columns = response_columns(response_mask)
        return to_columns(logprobs, columns), to_columns(entropy, columns)

    @torch.no_grad()
    def reference_logprobs(self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
        """Give the reference's log-probs of response tokens [B, R], at the same temperature."""
        model = self.reference.model if self.reference else self.policy.model
        with self.autocast(), self._adapters_off():
            logprobs = labelled_logprobs(
                model, input_ids, attention_mask, response_mask, temperature=self._temperature
            )
        return to_columns(logprobs, response_columns(response_mask))

    def values(self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
        """Give the value [B, R] of the state each response token is chosen in: the one before it."""
        with self.autocast():
            after_token: Tensor = self.critic(input_ids, attention_mask)
        return to_columns(after_token[:, :-1][response_mask[:, 1:]], response_columns(response_mask))

    def _adapters_off(self) -> AbstractContextManager[None]:
        if self.reference is not None:
            return nullcontext()
        return cast("PeftModel", self.policy.model).disable_adapter()


def response_columns(response_mask: Tensor) -> Tensor:
    """Turn a mask over tokens [B, T] into one over response columns [B, R]."""
    lengths = response_mask.sum(1, keepdim=True)
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths


def to_columns(flat: Tensor, columns: Tensor) -> Tensor:
    """Place values of response tokens [n], in row-major order, into [B, R]; differentiable."""
    return torch.zeros_like(columns, dtype=flat.dtype).masked_scatter(columns, flat)


def open_actors(
    section: Model,
    policy: LoadedModel,
    reward: RewardModel | None,
    *,
    reference: str | None,
    seed: int,
    precision: str,
    temperature: float,
) -> ActorCritic:
    """Open what PPO needs beside the policy, and switch dropout off in what learns.

    The reference is the policy as it starts unless it is given: its adapters off under LoRA, a frozen copy
    without. The critic starts as `reward`, or, without one, from the policy's base with a new head.
    """
    critic = open_critic(section, policy, reward, seed=seed)
    for model in (policy.model, critic):
        disable_dropout(model)
    frozen = _open_reference(section, policy, reference)
    autocast = autocast_for(precision, policy.device, num_parameters(policy.model))
    return ActorCritic(policy, frozen, critic, autocast=autocast, temperature=temperature)


def _open_reference(section: Model, policy: LoadedModel, reference: str | None) -> LoadedModel | None:
    """Load the reference; None where it is the policy with its adapters off."""
    is_start = reference is None or (policy.digest and locate(reference).digest == policy.digest)
    if is_start and section.lora is not None:
        return None
    return (
        load_frozen(section, policy.vocabulary)
        if reference is None
        else load_reference(reference, policy.vocabulary)
    )
