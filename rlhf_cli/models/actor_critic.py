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
from rlhf_cli.models.heads import Critic, open_critic
from rlhf_cli.models.load import LoadedModel, Vocabulary, load_frozen, load_reference, open_policy
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

    def logprobs_and_entropy(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give the policy's log-probs and entropies of response tokens, both [B, R] in nats, 0 where none is."""
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
    vocabulary: Vocabulary,
    *,
    reference: str | None,
    critic_from: str | None,
    seed: int,
    precision: str,
    temperature: float,
) -> ActorCritic:
    """Load the three without dropout.

    `reference` None is the policy as it starts: its adapters off under LoRA, a frozen copy without. `critic_from`
    is the reward model the critic starts as; None starts it from the policy's base with a new head.
    """
    policy = open_policy(section, vocabulary, seed)
    frozen = None
    if reference is not None:
        frozen = load_reference(reference, vocabulary)
    elif section.lora is None:
        frozen = load_frozen(section, vocabulary)
    critic = open_critic(section, vocabulary, critic_from, seed=seed)
    for model in (policy.model, critic):
        disable_dropout(model)
    autocast = autocast_for(precision, policy.device, num_parameters(policy.model))
    return ActorCritic(policy, frozen, critic, autocast=autocast, temperature=temperature)
