"""The models of PPO, asked about sampled tokens: policy, reference and critic."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Critic as CriticSection
from rlhf_cli.config.sections import Model
from rlhf_cli.models.device import Autocast, autocast_for, disable_dropout, num_parameters
from rlhf_cli.models.heads import Critic, RewardModel, ValueHead, open_critic
from rlhf_cli.models.load import LoadedModel, load_frozen, load_reference
from rlhf_cli.models.locate import locate
from rlhf_cli.models.scoring import logprobs_and_entropy_at, logprobs_at

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Judged:
    """What the models say about N sampled tokens, each [N].

    logprobs   of the tokens, in nats
    values     of the states they were chosen in, where the critic is a head on the policy
    entropy    of the distributions they were drawn from, in nats, detached; None where it was not asked for
    """

    logprobs: Tensor
    values: Tensor | None
    entropy: Tensor | None = None


class ActorCritic:
    """A policy, the reference it is held to, and a critic, all asked about sampled tokens.

    `reference` None means the policy with its adapters off: one copy of the weights. `critic` None means that
    nothing estimates values. `exact` says that the forward pass runs in fp32, so that the same weights give the same
    log-probs.
    """

    def __init__(
        self,
        policy: LoadedModel,
        reference: LoadedModel | None,
        critic: Critic | ValueHead | None,
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

    @property
    def models(self) -> list[LoadedModel]:
        """List the models that read whole rows; a value head on the policy is none."""
        own = [self.critic.loaded] if isinstance(self.critic, Critic) else []
        return [self.policy, *([self.reference] if self.reference else []), *own]

    @property
    def trained_cores(self) -> list[PreTrainedModel]:
        """List the models inside of what learns."""
        return [loaded.core for loaded in self.models if loaded is not self.reference]

    def judge(
        self,
        inputs: Mapping[str, Tensor],
        predictor_index: Tensor,
        target_ids: Tensor,
        *,
        with_entropy: bool = False,
    ) -> Judged:
        """Ask the policy about the tokens `target_ids` [N] that positions `predictor_index` [N] predict.

        `inputs` is what the models are called with, in whatever layout; positions are counted row by row.
        """
        model, asked = self.policy.model, (inputs, predictor_index, target_ids)
        with self.autocast(), _head_inputs(model) as states:
            if with_entropy:
                logprobs, entropies = logprobs_and_entropy_at(model, *asked, temperature=self._temperature)
            else:
                logprobs, entropies = logprobs_at(model, *asked, temperature=self._temperature), None
            own_head = self.critic if isinstance(self.critic, ValueHead) else None
            values = own_head(states[0].index_select(0, predictor_index)) if own_head else None
        return Judged(logprobs, values, entropies)

    def values(self, inputs: Mapping[str, Tensor], predictor_index: Tensor) -> Tensor:
        """Ask a critic of its own about the states after the positions `predictor_index` [N] -> [N]."""
        assert isinstance(self.critic, Critic)
        with self.autocast():
            values: Tensor = self.critic(inputs, predictor_index)
        return values

    @property
    def has_own_critic(self) -> bool:
        """Say whether the critic is a model beside the policy."""
        return isinstance(self.critic, Critic)

    @torch.no_grad()
    def reference_logprobs(
        self, inputs: Mapping[str, Tensor], predictor_index: Tensor, target_ids: Tensor
    ) -> Tensor:
        """Give the reference's log-probs [N] of tokens, at the same temperature."""
        model = self.reference.model if self.reference else self.policy.model
        with self.autocast(), self._adapters_off():
            return logprobs_at(model, inputs, predictor_index, target_ids, temperature=self._temperature)

    def _adapters_off(self) -> AbstractContextManager[None]:
        if self.reference is not None:
            return nullcontext()
        return cast("PeftModel", self.policy.model).disable_adapter()


@contextmanager
def _head_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect what comes out of the model's body, row by row [T, D], at each call; some of it reaches the head."""
    states: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: states.append(inputs[0].flatten(0, 1))
    )
    try:
        yield states
    finally:
        handle.remove()


def open_actors(
    section: Model,
    policy: LoadedModel,
    reward: RewardModel | None,
    critic: CriticSection | None,
    *,
    reference: str | None,
    seed: int,
    precision: str,
    temperature: float,
) -> ActorCritic:
    """Open what PPO needs beside the policy, and switch dropout off in what learns.

    The reference is the policy as it starts unless it is given: its adapters off under LoRA, a frozen copy
    without. A critic of its own (`critic` None: there is none) starts as `reward` with `init: reward`, else from the
    policy's base with a new head.
    """
    disable_dropout(policy.model)
    autocast = autocast_for(precision, policy.device, num_parameters(policy.model))
    frozen = _open_reference(section, policy, reference)
    value_model: Critic | ValueHead | None = None
    if critic is not None and critic.share == "trunk":
        value_model = ValueHead(policy, seed=seed)
    elif critic is not None:
        value_model = open_critic(section, policy, reward if critic.init == "reward" else None, seed=seed)
        disable_dropout(value_model)
    return ActorCritic(policy, frozen, value_model, autocast=autocast, temperature=temperature)


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
