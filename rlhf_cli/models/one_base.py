"""One copy of the weights for several models under LoRA: the critic and the reward model on the policy's base.

A twin is a model of its own, with its own modules and adapters, whose frozen weights are the very storage of
another's. Nothing is switched on and off, so gradients and checkpointing work as in any model.
"""

import copy
import json
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rlhf_cli.models.load import LoadedModel
from rlhf_cli.run.directory import RunDir


def classifier_twin(core: PreTrainedModel) -> PreTrainedModel:
    """Make a one-label classifier whose base is frozen and shares the storage of `core`'s; adapters stay behind.

    `core` is a causal language model or a classifier, with or without adapters inside. The head is an
    unfilled Linear, or shared as well where `core` has one.
    """
    config = copy.deepcopy(core.config)
    config.num_labels = 1
    with torch.device("meta"):
        twin = AutoModelForSequenceClassification.from_config(config)
    source, target = core.base_model, twin.base_model
    target.load_state_dict(base_weights(source), assign=True)
    _share_buffers(source, target)
    twin.score.to_empty(device=core.device)
    heads = {name: tensor for name, tensor in base_weights(core).items() if name.startswith("score.")}
    if heads:
        twin.load_state_dict(heads, assign=True, strict=False)
    return cast(PreTrainedModel, twin.requires_grad_(False).train(core.training))


def base_weights(module: nn.Module) -> dict[str, Tensor]:
    """Give the weights below any adapters, under the names they have without adapters.

    `data` makes other Parameters of one storage: asking a twin's for a gradient must not ask the source's.
    """
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): parameter.data
        for name, parameter in module.named_parameters()
        if "lora_" not in name and ".modules_to_save." not in name
    }


def _share_buffers(source: nn.Module, target: nn.Module) -> None:
    """Put the source's buffers (rotary tables) where a twin made on the meta device has empty ones."""
    twins = dict(target.named_modules())
    for name, module in source.named_modules():
        if name not in twins:  # inside an adapter
            continue
        for key, buffer in module.named_buffers(recurse=False):
            twins[name].register_buffer(key, buffer, persistent=False)
        # Some layers keep tables beside the registered ones.
        twins[name].__dict__ |= {
            key: value for key, value in vars(module).items() if isinstance(value, Tensor)
        }


def adapter_on(path: str, policy: LoadedModel) -> Path | None:
    """Find the adapter of a run that was trained on the model `policy` started as, by digest; None if there is none."""
    run_dir = RunDir(Path(path))
    if policy.model is policy.core or not (run_dir.adapter.is_dir() and run_dir.manifest.exists()):
        return None
    parents = json.loads(run_dir.manifest.read_text(encoding="utf-8")).get("parents", [])
    bases = {parent["digest"] for parent in parents if parent["role"] == "model"}
    return run_dir.adapter if bases == {policy.digest} and policy.digest else None
