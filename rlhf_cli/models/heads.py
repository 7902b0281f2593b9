"""Scalar heads: reward models, and critics made from them.

Both are transformers' `AutoModelForSequenceClassification` with one label, so a saved one loads anywhere.
A reward model reads the head at the last token of a row (the EOS); a critic reads it at every token.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rlhf_cli.config.sections import Lora, Model
from rlhf_cli.errors import DataError
from rlhf_cli.models.device import disable_dropout, pick_device
from rlhf_cli.models.load import (
    LoadedModel,
    Vocabulary,
    attention_kwargs,
    fit_embeddings,
    load_vocabulary,
    quiet_loading,
    quiet_peft,
    wrap_lora,
)
from rlhf_cli.models.locate import locate
from rlhf_cli.models.one_base import adapter_on, classifier_twin
from rlhf_cli.models.packing import read_only_at, rounded_up
from rlhf_cli.models.reading import require_whole
from rlhf_cli.run.directory import RunDir, digest_dir
from rlhf_cli.run.reading import Reading


def load_classifier(section: Model, vocabulary: Vocabulary, *, new_head_seed: int | None) -> LoadedModel:
    """Load a scalar-head model: a causal LM with a fresh head (`new_head_seed`), or a trained one (None).

    A fresh head is N(0, 1/sqrt(d+1)) (Stiennon et al. 2020, appendix B). Raises DataError when the
    architecture has no such head, or when a trained head is asked for and the files hold none.
    """
    assert section.path is not None
    located = locate(section.path, section.revision)
    device = pick_device()
    quiet_loading()
    with Reading(section.path, "weights"):
        core, info = AutoModelForSequenceClassification.from_pretrained(
            located.name,
            revision=section.revision,
            num_labels=1,
            dtype=torch.float32,
            trust_remote_code=section.trust_remote_code,
            output_loading_info=True,
            **attention_kwargs(section.attention),
        )
    if new_head_seed is None and any("score" in key for key in info["missing_keys"]):
        raise DataError(
            f"{section.path} has no trained score head",
            where=section.path,
            fix="give a run of train-rm, or a one-label sequence classification model",
        )
    require_whole(core, {key for key in info["missing_keys"] if "score" not in key}, section.path)
    fit_embeddings(core, vocabulary.tokenizer)
    if new_head_seed is not None:
        _init_head(score_head(core), new_head_seed)
    disable_dropout(core)
    model = core if section.lora is None else wrap_lora(core, section.lora, task="SEQ_CLS")
    nn.Module.to(model, device)
    return LoadedModel(model, core, vocabulary, device, section.path, located.digest)


def score_head(core: PreTrainedModel) -> nn.Module:
    """Find the scalar head; every causal-LM classifier of transformers calls it `score`."""
    modules = dict(core.named_children())
    if "score" not in modules:
        raise DataError(f"{type(core).__name__} has no `score` head", fix="use a decoder-only base model")
    return modules["score"]


def _init_head(head: nn.Module, seed: int) -> None:
    assert isinstance(head, nn.Linear)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = torch.randn(head.weight.shape, generator=generator) / (head.in_features + 1) ** 0.5
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.zero_()


def last_token_scores(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score rows [B, T] at their last token that is not PAD -> [B] fp32."""
    output = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    scores: Tensor = output.logits[:, 0]
    return scores.float()


def scores_at(core: PreTrainedModel, inputs: Mapping[str, Tensor], index: Tensor) -> Tensor:
    """Score the prefixes that end at `index` [A] -> [A] fp32; positions of the output are counted row by row.

    `core` is the classifier itself, adapters and all; `inputs` is what it is called with, in whatever layout.
    """
    rounded = rounded_up(index)
    with read_only_at(core, rounded):
        states = core.base_model(**inputs, use_cache=False).last_hidden_state
    read = states.flatten(0, 1).index_select(0, rounded)
    scores: Tensor = score_head(core)(read)[: len(index), 0]
    return scores.float()


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """How raw scores become rewards of unit scale: (score - mean) / std."""

    mean: float = 0.0
    std: float = 1.0


def read_score_scale(path: str) -> ScoreScale | None:
    """Read the scale that train-rm stored in the manifest of its run; None for any other model."""
    manifest = RunDir(Path(path)).manifest
    if not manifest.exists():
        return None
    stored = json.loads(manifest.read_text(encoding="utf-8"))["extra"].get("score_scale")
    if stored and not stored["std"] > 0:
        raise DataError(
            "the reward model gives every answer the same score, so there is nothing to learn from it",
            where=path,
            fix="look at its eval/accuracy; train it on more pairs or longer",
        )
    return ScoreScale(**stored) if stored else None


class Critic(nn.Module):
    """A scalar-head model read at any token, in units of the normalised reward.

    Started from the reward model, V equals the normalised score wherever a row could end.
    """

    def __init__(self, loaded: LoadedModel, scale: ScoreScale) -> None:
        super().__init__()
        self.classifier = loaded.model
        self.scale = scale
        self.loaded = loaded  # no module: its core is part of the classifier

    def forward(self, inputs: Mapping[str, Tensor], index: Tensor) -> Tensor:
        """Give V of the states after the tokens `index` [N], counted row by row -> [N] fp32."""
        return (scores_at(self.loaded.core, inputs, index) - self.scale.mean) / self.scale.std


class ValueHead(nn.Module):
    """A critic without a body: a scalar head on the policy's own hidden states, N(0, 1/sqrt(d+1)) at first."""

    def __init__(self, policy: LoadedModel, *, seed: int) -> None:
        super().__init__()
        config = policy.core.config.get_text_config()
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        _init_head(self.score, seed)
        self.score.to(policy.device)

    def forward(self, states: Tensor) -> Tensor:
        """Give V of states [N, D] -> [N] fp32."""
        values: Tensor = self.score(states)[:, 0]
        return values.float()


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A frozen reward model, and how its scores become rewards.

    on_policy_base   it is an adapter on the policy's own weights
    """

    loaded: LoadedModel
    scale: ScoreScale | None
    on_policy_base: bool


def load_reward_model(path: str, policy: LoadedModel | None = None) -> RewardModel:
    """Load a trained reward model, frozen, with the scale its run stored.

    One that was trained with LoRA on the model `policy` started as is its adapter and head on `policy`'s own base.
    """
    section = Model(path=path)
    adapter = None if policy is None else adapter_on(path, policy)
    if policy is not None and adapter is not None:
        loaded = _with_adapter(policy, section, adapter, trainable=False)
    else:
        loaded = load_classifier(section, load_vocabulary(section), new_head_seed=None)
    loaded.model.eval().requires_grad_(False)
    return RewardModel(loaded, read_score_scale(path), on_policy_base=adapter is not None)


def open_critic(section: Model, policy: LoadedModel, reward: RewardModel | None, *, seed: int) -> Critic:
    """Make the critic: the reward model with its head, or, without one, the policy's base with a new head.

    `section` is the policy's. Under LoRA the critic's base is shared, with the policy or else with the reward
    model; it learns the reward model's own adapter where there is one, else a new one of the policy's shape.
    """
    if reward is None:
        if section.lora is None:
            return Critic(load_classifier(section, policy.vocabulary, new_head_seed=seed), ScoreScale())
        return Critic(_with_new_adapter(policy, section.lora, new_head_seed=seed), ScoreScale())
    loaded, scale = reward.loaded, reward.scale or ScoreScale()
    own = Model(path=loaded.path, attention=section.attention)
    if section.lora is None:
        return Critic(load_classifier(own, loaded.vocabulary, new_head_seed=None), scale)
    adapter = adapter_on(loaded.path, policy)
    if adapter is not None:
        return Critic(_with_adapter(policy, own, adapter, trainable=True), scale)
    return Critic(_with_new_adapter(loaded, section.lora, new_head_seed=None), scale)


def _with_adapter(policy: LoadedModel, section: Model, adapter: Path, *, trainable: bool) -> LoadedModel:
    """Put a trained adapter and its head on a twin of the policy's base."""
    from peft import PeftModel

    assert section.path is not None
    twin = classifier_twin(policy.core)
    disable_dropout(twin)
    with quiet_peft():
        wrapped = PeftModel.from_pretrained(twin, adapter, is_trainable=trainable)
    wrapped.to(policy.device)
    model = cast(PreTrainedModel, wrapped)
    return LoadedModel(
        model, twin, load_vocabulary(section), policy.device, section.path, digest_dir(adapter)
    )


def _with_new_adapter(base: LoadedModel, lora: Lora, *, new_head_seed: int | None) -> LoadedModel:
    """Put a new adapter on a twin of `base`, with a new head (`new_head_seed`) or a copy of its head (None)."""
    twin = classifier_twin(base.core)
    disable_dropout(twin)
    if new_head_seed is not None:
        _init_head(score_head(twin), new_head_seed)
    model = wrap_lora(twin, lora, task="SEQ_CLS")
    nn.Module.to(model, base.device)
    return LoadedModel(model, twin, base.vocabulary, base.device, base.path, base.digest)
