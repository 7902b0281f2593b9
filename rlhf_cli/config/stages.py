"""One configuration per stage: the YAML file as a whole, and the rules that join its sections."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import Count, Name, Refusal, Section, refuse
from rlhf_cli.config.sections import (
    Candidate,
    Checkpoint,
    Constitution,
    Critic,
    Data,
    DpoLoss,
    Eval,
    Export,
    Generation,
    Labeler,
    Log,
    Loop,
    Model,
    ModelReward,
    Optim,
    Overlap,
    Ppo,
    PpoOptim,
    RewardLabeler,
    RewardSource,
    RmLoss,
    Rollout,
    SftLoss,
    Source,
    TerminalLabeler,
    Train,
)

Seed = Annotated[int, Field(ge=0, lt=2**32)]


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
        refuse(_start_refusals(self.model) + _dropout_refusals(self.model))
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
        if needs_reward_model and not any(isinstance(r, ModelReward) for r in self.reward):
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


class CollectConfig(Section):
    """`rlhf collect`: have answers compared, written by people, or criticised and revised."""

    run_dir: Name
    """Directory that holds everything this run writes."""
    seed: Seed = 0
    """Decides every random choice."""
    kind: Literal["preferences", "demonstrations", "constitution"] = "preferences"
    """Comparisons of two answers, answers that people write, or answers revised under principles."""
    prompts: list[Source] = Field(min_length=1)
    """Where the prompts come from."""
    candidates: list[Candidate] = Field(default=[], max_length=2)
    """The models that answer. To compare, a single one answers twice; for demonstrations, one may give drafts."""
    labeler: Labeler = TerminalLabeler(kind="terminal")
    """Who judges, or writes."""
    constitution: Constitution | None = None
    """Who criticises and revises, and by which principles; for `kind: constitution`."""
    overlap: Overlap = Overlap()
    """How many people judge the same pair."""
    generation: Generation = Generation()
    """How answers are sampled."""
    limit: Count | None = None
    """Stop after this many prompts."""
    max_prompt_length: Count = 1024
    """Longest prompt, in tokens of the candidates; longer ones are left out and counted."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Whether prompts go through the chat template; `auto` does so for conversations."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Whether a row that cannot be read stops the run or is counted and left out."""
    export: Export = Export()
    """What the training rows are made of."""
    round: Count | None = None
    """Round of an iterated training, for the record: it is written into every row."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_kind_refusals(self))
        if self.overlap.fraction and self.labeler.kind not in ("terminal", "web"):
            message = f"no people judge with labeler.kind {self.labeler.kind}, which would agree with itself"
            refuse([Refusal("overlap.fraction", message, "remove it")])
        return self


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


# Keys that not every kind of collection has a use for.
_KINDS_OF_KEYS = {
    "labeler": ("preferences", "demonstrations"),
    "overlap": ("preferences",),
    "export": ("preferences",),
    "constitution": ("constitution",),
}


def _kind_refusals(config: CollectConfig) -> list[Refusal]:
    """Refuse what another kind of collection is told, and candidates that cannot give what this kind needs."""
    refusals = []
    for key, kinds in _KINDS_OF_KEYS.items():
        if config.kind not in kinds and dict(config)[key] != CollectConfig.model_fields[key].default:
            message = f"has no effect with kind: {config.kind}"
            refusals.append(Refusal(key, message, f"remove it, or set `kind: {kinds[0]}`"))
    if config.kind == "demonstrations":
        return refusals + _demonstration_refusals(config)
    if not config.candidates:
        message = f"required with kind: {config.kind}"
        return [*refusals, Refusal("candidates", message, "name a model that answers the prompts")]
    if config.kind == "constitution":
        return refusals + _constitution_refusals(config)
    if isinstance(config.labeler, RewardLabeler):
        return refusals + _ranking_refusals(config.candidates, config.labeler)
    return refusals + _pair_refusals(config.candidates)


def _demonstration_refusals(config: CollectConfig) -> list[Refusal]:
    refusals = []
    if config.labeler.kind not in ("terminal", "web"):
        message = f"{config.labeler.kind} cannot write answers"
        refusals.append(Refusal("labeler.kind", message, "set it to terminal or web"))
    if len(config.candidates) > 1:
        message = "one model gives drafts, and this is a second one"
        refusals.append(Refusal("candidates.1", message, "remove it"))
    return refusals


def _constitution_refusals(config: CollectConfig) -> list[Refusal]:
    refusals = []
    if config.constitution is None:
        message = "required with kind: constitution"
        refusals.append(Refusal("constitution", message, "say at least which `chat` model criticises"))
    if len(config.candidates) > 1:
        message = "one model gives the first answers, and this is a second one"
        refusals.append(Refusal("candidates.1", message, "remove it"))
    return refusals


def _pair_refusals(candidates: list[Candidate]) -> list[Refusal]:
    if any(c.temperature > 0 or c != candidates[0] for c in candidates):
        return []
    message = "candidates.0 and candidates.1 would give the same answers: same model, temperature 0"
    if len(candidates) == 1:
        message = "a single entry in candidates answers twice, and at temperature 0 both answers are the same"
    return [Refusal("candidates.0.temperature", message, "use a temperature above 0")]


def _ranking_refusals(candidates: list[Candidate], labeler: RewardLabeler) -> list[Refusal]:
    refusals = []
    if len(candidates) * labeler.samples < 2:
        message = "one answer to each prompt leaves nothing to compare"
        refusals.append(Refusal("labeler.samples", message, "use at least 2"))
    for index, candidate in enumerate(candidates):
        if candidate.temperature == 0 and labeler.samples > 1:
            message = f"at temperature 0 the {labeler.samples} answers of labeler.samples are all the same"
            refusals.append(Refusal(f"candidates.{index}.temperature", message, "use a temperature above 0"))
    return refusals
