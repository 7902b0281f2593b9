"""Write the final model: what plain `from_pretrained` loads, published in one rename."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from rlhf_cli.models.load import LoadedModel, Vocabulary, quiet_loading
from rlhf_cli.models.one_base import base_weights
from rlhf_cli.run.directory import RunDir, publish_dir
from rlhf_cli.run.faults import fault_point

if TYPE_CHECKING:
    from peft import PeftModel


def save_trained(loaded: LoadedModel, run_dir: RunDir) -> None:
    """Write a stage's result into its run: the model, and under LoRA the adapter."""
    adapter_dir = None if loaded.model is loaded.core else run_dir.adapter
    save_model(loaded.model, loaded.vocabulary, run_dir.model, adapter_dir=adapter_dir)


def save_model(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    model_dir: Path,
    *,
    adapter_dir: Path | None = None,
    shard_size: str = "50GB",
) -> None:
    """Write weights, tokenizer, template and generation config to `model_dir`.

    With `adapter_dir` the model is a PEFT wrapper: the adapter alone goes there, and `model_dir` gets the base
    with the adapter merged in, so that every reader of plain models can use it. No file is larger than `shard_size`.
    """
    quiet_loading()
    tokenizer = vocabulary.tokenizer
    if adapter_dir is not None:
        temporary = _fresh_sibling(adapter_dir)
        fault_point("adapter.write", adapter_dir)
        model.save_pretrained(temporary)
        publish_dir(temporary, adapter_dir, replace=True)
        # Adapters learn in fp32; merging in a bf16 base would round away small updates.
        nn.Module.to(model, torch.float32)
        model = cast("PeftModel", model).merge_and_unload()
    if model.can_generate():
        model.generation_config = GenerationConfig(
            eos_token_id=list(vocabulary.stop_ids),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    temporary = _fresh_sibling(model_dir)
    fault_point("model.write", model_dir)
    model.save_pretrained(temporary, max_shard_size=shard_size)
    fault_point("tokenizer.write", model_dir)
    tokenizer.save_pretrained(temporary)
    publish_dir(temporary, model_dir, replace=True)


@torch.no_grad()
def write_weights(loaded: LoadedModel, folder: Path) -> None:
    """Write config and weights alone to `folder`, adapters merged in; the model itself stays as it is.

    Merging in place and back would change the last bits of the base.
    """
    quiet_loading()
    # Not `state_dict`, which puts weights that are gathered for now back into their parts.
    weights = dict(base_weights(loaded.core))
    if loaded.model is not loaded.core:
        _merge_adapters(loaded.core, weights)
    loaded.core.save_pretrained(folder, state_dict=weights)


def _merge_adapters(core: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Add what adapters change to the weights below them."""
    from peft.tuners.lora import Linear

    for name, module in core.named_modules():
        if isinstance(module, Linear):
            delta = module.get_delta_weight(module.active_adapters[0])
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + delta


def _fresh_sibling(target: Path) -> Path:
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary
