"""Every configuration section: the model and the data, defined here, and those of the loop and of single stages."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import (
    Count,
    Decay,
    Name,
    Positive,
    Refusal,
    Section,
    refuse,
)
from rlhf_cli.config.collect_sections import (
    Candidate,
    Export,
    Generation,
    Labeler,
    Overlap,
    RewardLabeler,
    RuleLabeler,
    TerminalLabeler,
    WebLabeler,
)
from rlhf_cli.config.constitution_sections import Constitution
from rlhf_cli.config.loop_sections import Checkpoint, Distributed, Eval, Log, Loop, Optim, PpoOptim, Train
from rlhf_cli.config.reward_sections import (
    AnswerReward,
    EnsembleReward,
    FunctionReward,
    HttpReward,
    LengthReward,
    ModelReward,
    RegexReward,
    RewardSource,
    reward_model_paths,
)
from rlhf_cli.config.stage_sections import (
    Critic,
    DpoLoss,
    Kl,
    Ppo,
    RmLoss,
    Rollout,
    SftLoss,
)

__all__ = [
    "AnswerReward",
    "Candidate",
    "Checkpoint",
    "Constitution",
    "Critic",
    "Data",
    "Distributed",
    "DpoLoss",
    "EnsembleReward",
    "Eval",
    "Export",
    "FromScratch",
    "FunctionReward",
    "Generation",
    "HttpReward",
    "Kl",
    "Labeler",
    "LengthReward",
    "Log",
    "Loop",
    "Lora",
    "Model",
    "ModelReward",
    "Optim",
    "Overlap",
    "Ppo",
    "PpoOptim",
    "RegexReward",
    "RewardLabeler",
    "RewardSource",
    "RmLoss",
    "Rollout",
    "RuleLabeler",
    "Section",
    "SftLoss",
    "Source",
    "SourceFormat",
    "TerminalLabeler",
    "Train",
    "WebLabeler",
    "reward_model_paths",
]

SourceFormat = Literal[
    "auto",
    "text",
    "prompt_completion",
    "instruction",
    "messages",
    "sharegpt",
    "question_answer",
    "preference",
    "hh",
    "response_pair",
    "ultrafeedback",
    "shp",
    "pku_saferlhf",
    "openai_summaries",
    "helpsteer3",
    "arena",
    "webgpt",
    "ranked_completions",
    "label_studio",
    "argilla",
    "sharegpt_preference",
    "asked_preference",
    "lm_human_preferences",
    "shared_prefix",
    "prompts",
]


class Lora(Section):
    """Low-rank adapters: only they are trained, the model below stays as it is."""

    rank: Count = 16
    """Rank of the two factor matrices."""
    alpha: Positive = 32.0
    """Scale of the adapter; its output is multiplied by alpha / rank."""
    dropout: Decay = 0.0
    """Probability of dropping an adapter input while training."""
    target: Literal["all-linear"] | list[Name] = "all-linear"
    """Which layers get an adapter: `all-linear`, or a list of module names."""


class FromScratch(Section):
    """A small Llama with random weights and a byte-level BPE tokenizer trained on the data."""

    hidden_size: Count = 192
    """Width of the model; a multiple of num_heads."""
    num_layers: Count = 3
    """Number of transformer blocks."""
    num_heads: Count = 3
    """Number of attention heads in each block."""
    vocab_size: int = Field(default=1024, ge=260)
    """Size of the vocabulary the tokenizer learns, special tokens and the 256 bytes included."""
    max_positions: Count = 1024
    """Longest sequence the model can read, in tokens."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            heads = f"model.from_scratch.num_heads = {self.num_heads}"
            message = f"{self.hidden_size} does not split into {heads} heads of even width"
            refuse([Refusal("hidden_size", message, f"use a multiple of {2 * self.num_heads}")])
        return self


class Model(Section):
    """The model to train: exactly one of `path` and `from_scratch`."""

    path: Name | None = None
    """A model directory, a finished run directory, or a Hugging Face model name."""
    revision: Name | None = None
    """Branch, tag or commit of a Hugging Face model."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type the weights are kept in; `auto` is float32 for weights that are trained."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention kernel; `auto` takes the fastest one that computes exactly what is needed."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all the weights."""
    from_scratch: FromScratch | None = None
    """Start from a small random model instead of `path`."""
    chat_template: Name | None = None
    """A jinja file that replaces the tokenizer's chat template."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; needs `revision` to be a full commit hash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = []
        if self.path is not None and self.from_scratch is not None:
            message = "excludes model.from_scratch: exactly one of them says where to start"
            refusals.append(Refusal("path", message, "keep one of them"))
        if self.lora is not None and self.from_scratch is not None:
            message = "adapts a trained model, and model.from_scratch makes an untrained one"
            refusals.append(Refusal("lora", message, "remove one of them"))
        if self.path is None and self.from_scratch is None:
            message = "needs exactly one of model.path and model.from_scratch"
            refusals.append(Refusal("", message, "add `path: <a model>` or `from_scratch: {}`"))
        if self.revision is not None and self.path is None:
            message = "has no meaning without model.path"
            refusals.append(Refusal("revision", message, "remove `revision`"))
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            message = "needs model.revision to be a commit hash of 40 hex digits"
            refusals.append(Refusal("trust_remote_code", message, "pin the commit whose code you have read"))
        refuse(refusals)
        return self


class Source(Section):
    """One data set: a file, a directory, a run, or a Hugging Face data set name."""

    path: Name
    """Where the rows are: a file, a directory, a finished `collect` run, or a Hugging Face data set name."""
    format: SourceFormat = "auto"
    """Layout of a row; `auto` recognises it by the columns and says what it found."""
    columns: dict[Name, Name] = Field(default={})
    """Renames columns: the name the format expects, then the name in the file."""
    weight: Positive = 1.0
    """How often rows are drawn relative to the other sources."""
    limit: Count | None = None
    """Use only the first rows, this many."""
    split: Name = "train"
    """Split of a Hugging Face data set."""
    revision: Name | None = None
    """Branch, tag or commit of a Hugging Face data set."""
    subset: Name | None = None
    """Configuration name of a Hugging Face data set, or the folder inside it."""
    tokenizer: Name | None = None
    """Whose token ids the rows hold, for `lm_human_preferences` alone: a tokenizer's directory or Hugging Face name."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format == "lm_human_preferences" and self.tokenizer is None:
            message = "lm_human_preferences holds token ids, and nothing says whose"
            refuse([Refusal("format", message, "add `tokenizer: <a directory or Hugging Face name>`")])
        if self.format not in ("auto", "lm_human_preferences") and self.tokenizer is not None:
            message = f"has no meaning for {self.format}, whose rows hold text"
            refuse([Refusal("tokenizer", message, "remove `tokenizer`")])
        return self


class Data(Section):
    """What to train on, what to hold out, and how rows become tokens."""

    train: list[Source] = Field(min_length=1)
    """The sources to train on."""
    eval: list[Source] | None = Field(default=None, min_length=1)
    """The sources to evaluate on; the other way is `eval_fraction`."""
    eval_fraction: Decay = 0.0
    """Share of the training prompts held out for evaluation, chosen by prompt hash and seed."""
    max_length: int = Field(default=1024, ge=2)
    """Longest row, in tokens."""
    over_length: Literal["truncate", "drop", "error"] = "truncate"
    """What happens to a longer row; the number of such rows is always reported."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Whether a row that cannot be read stops the run or is counted and left out."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Whether text goes through the chat template; `auto` does so for conversations."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eval is not None and self.eval_fraction > 0:
            message = "excludes data.eval: both choose the evaluation rows"
            refuse([Refusal("eval_fraction", message, "keep one of them")])
        return self
