"""One configuration per stage: the YAML file as a whole, and the rules that join its sections."""

import math
from typing import Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import Name, Refusal, Section, Seed, refuse
from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.config.sections import (
    Checkpoint,
    Critic,
    Data,
    Distributed,
    DpoLoss,
    Eval,
    Log,
    Loop,
    Model,
    Optim,
    Ppo,
    PpoOptim,
    RewardSource,
    RmLoss,
    Rollout,
    SftLoss,
    Train,
    reward_model_paths,
)


class TrainingConfig(Section):
    """What every training stage is told."""

    run_dir: Name
    """Directory that holds everything this run writes."""
    seed: Seed = 0
    """Decides every random choice."""
    model: Model
    """The model to train, or to start from."""
    data: Data
    """The rows to learn from: demonstrations, preferences or prompts."""
    checkpoint: Checkpoint = Checkpoint()
    """When to write checkpoints."""
    log: Log = Log()
    """What is reported when."""
    eval: Eval = Eval()
    """How often to evaluate."""
    distributed: Distributed = Distributed()
    """How several processes share the work."""


class RowTrainingConfig(TrainingConfig):
    """What the stages that walk over given rows are told besides."""

    optim: Optim = Optim()
    """The optimizer."""
    train: Train = Train()
    """The training loop."""


class SftConfig(RowTrainingConfig):
    """`rlhf sft`: fine-tune a language model on demonstrations."""

    loss: SftLoss = SftLoss()
    """Which tokens carry the loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_length_refusals(self.model, self.data))
        return self


class TrainRmConfig(RowTrainingConfig):
    """`rlhf train-rm`: train a reward model on preferences."""

    loss: RmLoss = RmLoss()
    """The preference loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_start_refusals(self.model))
        return self


class DpoConfig(RowTrainingConfig):
    """`rlhf dpo`: train a policy directly on preferences."""

    reference: Name | None = None
    """The model the policy is held to; null is the policy as it starts."""
    loss: DpoLoss = DpoLoss()
    """The preference loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = _start_refusals(self.model) + _dropout_refusals(self.model)
        if self.reference is not None and self.loss.type in ("simpo", "orpo"):
            message = f"has no effect with loss.type = {self.loss.type}, which uses no reference"
            refusals.append(Refusal("reference", message, "remove it"))
        refuse(refusals)
        return self


class PpoConfig(TrainingConfig):
    """`rlhf ppo`: train a policy on rewards for its own answers."""

    reference: Name | None = None
    """The model the policy is held to; null is the policy as it starts."""
    optim: PpoOptim = PpoOptim()
    """The optimizer."""
    train: Loop = Loop()
    """The training loop; steps are optimizer steps, epochs are passes over the prompts."""
    reward: list[RewardSource] = Field(min_length=1)
    """What is rewarded; the weighted scores are added."""
    critic: Critic = Critic()
    """The value model."""
    rollout: Rollout = Rollout()
    """How the policy answers."""
    ppo: Ppo = Ppo()
    """The algorithm."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = _start_refusals(self.model) + _dropout_refusals(self.model)
        needs_reward_model = (
            self.ppo.advantage == "gae" and self.critic.share == "none" and self.critic.init == "reward"
        )
        if needs_reward_model and not reward_model_paths(self.reward):
            message = "`reward` needs a source with `kind: model` in reward"
            refusals.append(
                Refusal("critic.init", message, "set `critic.init: policy`, or add a reward model")
            )
        refuse(refusals + self._sample_refusals())
        return self

    def _sample_refusals(self) -> list[Refusal]:
        refusals = []
        num_answers, num_samples = self.rollout.batch_size, self.rollout.samples_per_prompt
        if num_answers % num_samples:
            message = f"not a multiple of rollout.samples_per_prompt = {num_samples}"
            fix = f"use {math.ceil(num_answers / num_samples) * num_samples}"
            refusals.append(Refusal("rollout.batch_size", message, fix))
        if self.ppo.advantage in ("rloo", "grpo") and num_samples == 1:
            message = f"`{self.ppo.advantage}` compares the answers to a prompt, and there is one to each"
            refusals.append(Refusal("ppo.advantage", message, "set `rollout.samples_per_prompt: 4`"))
        if self.ppo.minibatches * num_samples > num_answers:
            message = (
                f"more than the {num_answers // num_samples} prompts of an iteration: some would be empty"
            )
            refusals.append(Refusal("ppo.minibatches", message, "use at most one minibatch per prompt"))
        return refusals


STAGES: dict[str, type[Section]] = {
    "sft": SftConfig,
    "collect": CollectConfig,
    "train-rm": TrainRmConfig,
    "ppo": PpoConfig,
    "dpo": DpoConfig,
}


def _length_refusals(model: Model, data: Data) -> list[Refusal]:
    if model.from_scratch is None or model.from_scratch.max_positions >= data.max_length:
        return []
    message = f"longer than model.from_scratch.max_positions = {model.from_scratch.max_positions}"
    return [Refusal("data.max_length", f"{data.max_length} is {message}", "lower it, or raise max_positions")]


def _start_refusals(model: Model) -> list[Refusal]:
    if model.from_scratch is None:
        return []
    return [
        Refusal(
            "model.from_scratch", "only `rlhf sft` makes a model", "set `model.path` to the run of an sft"
        )
    ]


def _dropout_refusals(model: Model) -> list[Refusal]:
    if model.lora is None or model.lora.dropout == 0:
        return []
    message = "has no effect here: dropout would make a model disagree with itself"
    return [Refusal("model.lora.dropout", message, "remove it")]
