"""The sections of the training loop: optimizer, length, checkpoints, reports."""

from typing import Literal, Self

from pydantic import model_validator

from rlhf_cli.config.base import Count, Decay, Fraction, NonNegative, Positive, Refusal, Section, refuse


class Optim(Section):
    """AdamW and its learning-rate schedule."""

    lr: Positive = 1e-5
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator of the update."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay; biases and norms are left out."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup: Decay = 0.03
    """Share of all steps over which the learning rate rises linearly to its peak."""
    final_lr_ratio: Fraction = 0.0
    """What the learning rate falls to by the end, relative to the peak."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient; longer gradients are scaled down to it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule == "constant" and self.final_lr_ratio > 0:
            message = "has no effect with optim.schedule = constant"
            refuse([Refusal("final_lr_ratio", message, "remove it, or use `schedule: linear`")])
        return self


class PpoOptim(Optim):
    """AdamW and its learning-rate schedule, with the defaults that suit PPO."""

    lr: Positive = 3e-6
    """Peak learning rate."""
    eps: Positive = 1e-5
    """Added to the denominator of the update."""


class Loop(Section):
    """How long to train, and with what memory and arithmetic."""

    epochs: Count = 1
    """Passes over the training rows."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, even in the middle of an epoch."""
    micro_tokens: Literal["auto"] | Count = "auto"
    """Tokens in one forward pass; only speed and memory depend on it."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bfloat16 where the hardware has it."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass: less memory, a third more time; `auto` does where a row needs it."""
    compile: bool = False
    """Compile the model with torch.compile."""


class Train(Loop):
    """How long to train, on how many rows at a time, and with what memory and arithmetic."""

    batch_size: Count = 64
    """Rows in one optimizer step, over all micro-batches and devices together."""


class Distributed(Section):
    """How several processes share the work, where a launcher starts more than one."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Every process holds all weights (ddp) or a part of each (fsdp); `auto` is fsdp where a GPU would be half full."""
    shard_size: Count | None = None
    """Processes that share one copy of the weights, by default all; fewer make several copies, say one per machine."""
    cpu_offload: bool = False
    """With fsdp, keep weights and optimizer in the memory of the CPU."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy == "ddp" and (self.shard_size or self.cpu_offload):
            key = "shard_size" if self.shard_size else "cpu_offload"
            refuse([Refusal(key, "has no effect with distributed.strategy = ddp", "remove it, or use fsdp")])
        return self


class Checkpoint(Section):
    """When to write checkpoints, and how many to keep."""

    every_steps: Count = 100
    """Optimizer steps between two checkpoints."""
    keep: Count = 2
    """How many of the newest checkpoints stay on disk."""


class Log(Section):
    """How often to report."""

    every_steps: Count = 10
    """Optimizer steps that each line of metrics.jsonl, and of the progress, is the mean of."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Dashboards that get the metrics too, each an extra of this package; what leaves are numbers only."""


class Eval(Section):
    """How often to evaluate, and on how much."""

    every_steps: Count = 100
    """Optimizer steps between two evaluations."""
    max_rows: Count = 512
    """Evaluate on at most this many rows."""
