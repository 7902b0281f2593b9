"""Load causal language models: for training (full weights or LoRA), for sampling, or from scratch."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from rlhf_cli.config.sections import FromScratch, Lora, Model
from rlhf_cli.errors import ConfigError, DataError
from rlhf_cli.models.device import num_parameters, pick_device
from rlhf_cli.models.locate import locate
from rlhf_cli.models.reading import require_language_model, require_whole
from rlhf_cli.models.tokenizer import load_tokenizer, stop_ids_of, tokenizers_agree, train_tokenizer
from rlhf_cli.run.reading import Reading

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer, the ids that end an answer, and the longest row the model reads (None: no limit known)."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    max_positions: int | None

    @property
    def pad_id(self) -> int:
        """Give the id that fills rows; never an EOS."""
        return int(self.tokenizer.pad_token_id)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with what its artefacts carry: vocabulary, identity.

    model          what is called and trained; a PEFT wrapper under LoRA
    core           the transformers model inside (the same object without LoRA)
    digest         identity of the files it came from ("" when made from scratch)
    """

    model: PreTrainedModel
    core: PreTrainedModel
    vocabulary: Vocabulary
    device: torch.device
    path: str
    digest: str


def load_vocabulary(section: Model) -> Vocabulary:
    """Load the tokenizer and stop ids of a configured model, without its weights."""
    assert section.path is not None
    located = locate(section.path, section.revision)
    config = _config(section, located.name)
    generation_config = _generation_config(located.name, section.revision)
    tokenizer = load_tokenizer(
        located.name,
        revision=section.revision,
        chat_template=section.chat_template,
        trust_remote_code=section.trust_remote_code,
        generation_config=generation_config,
    )
    stop_ids = stop_ids_of(tokenizer, generation_config)
    return Vocabulary(tokenizer, stop_ids, _positions_of(config))


def make_vocabulary(section: FromScratch, texts: Iterable[str]) -> Vocabulary:
    """Train the tokenizer of a from-scratch model."""
    tokenizer = train_tokenizer(texts, section.vocab_size)
    return Vocabulary(tokenizer, (int(tokenizer.eos_token_id),), section.max_positions)


def _config(section: Model, name: str) -> PretrainedConfig:
    with Reading(str(section.path), "config.json"):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            name, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    return config


def _generation_config(name: str, revision: str | None) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(name, revision=revision or "main")
    except OSError as error:  # many models come without one
        file = Path(name) / "generation_config.json"
        if not file.exists():
            return None
        fix = "get the model again, or remove the file"
        raise DataError("generation_config.json is not JSON", where=str(file), fix=fix) from error


def open_policy(section: Model, vocabulary: Vocabulary, seed: int) -> LoadedModel:
    """Load the model a stage trains, or make it; `seed` decides new weights, LoRA's included."""
    torch.manual_seed(seed)
    if section.from_scratch is not None:
        return make_policy(section.from_scratch, vocabulary)
    return load_policy(section, vocabulary)


def load_policy(section: Model, vocabulary: Vocabulary) -> LoadedModel:
    """Load the model a stage trains; with `lora`, wrapped so that only the adapters learn.

    Weights are fp32; a frozen LoRA base is bf16 on a GPU, unless `dtype` says otherwise.
    """
    assert section.path is not None
    located = locate(section.path, section.revision)
    device = pick_device()
    frozen_base = section.lora is not None and device.type == "cuda"
    dtype = "bfloat16" if section.dtype == "auto" and frozen_base else section.dtype
    quiet_loading()
    with Reading(section.path, "weights"):
        loaded = AutoModelForCausalLM.from_pretrained(
            located.name,
            revision=section.revision,
            dtype=_DTYPES.get(dtype, torch.float32),
            trust_remote_code=section.trust_remote_code,
            output_loading_info=True,
            **attention_kwargs(section.attention),
        )
    core, info = cast(tuple[PreTrainedModel, dict[str, set[str]]], loaded)
    require_language_model(core, section.path)
    require_whole(core, info["missing_keys"], section.path)
    fit_embeddings(core, vocabulary.tokenizer)
    model = core if section.lora is None else wrap_lora(core, section.lora, task="CAUSAL_LM")
    nn.Module.to(model, device)
    return LoadedModel(model, core, vocabulary, device, section.path, located.digest)


def load_policy_for_sampling(path: str, revision: str | None = None) -> LoadedModel:
    """Load a frozen model in eval mode, to sample or score with."""
    section = Model(path=path, revision=revision)
    return load_frozen(section, load_vocabulary(section))


def load_frozen(section: Model, vocabulary: Vocabulary) -> LoadedModel:
    """Load the configured model as it is, without adapters, in eval mode."""
    loaded = load_policy(section.model_copy(update={"lora": None}), vocabulary)
    loaded.model.eval().requires_grad_(False)
    return loaded


def load_reference(path: str, vocabulary: Vocabulary) -> LoadedModel:
    """Load a frozen model to compare a policy with. Raises DataError when it reads other token ids."""
    loaded = load_policy_for_sampling(path)
    if not tokenizers_agree(loaded.vocabulary.tokenizer, vocabulary.tokenizer):
        raise DataError(
            f"the reference {path} has another tokenizer than the model",
            where="reference",
            fix="leave `reference` out, or give a model of the same family",
        )
    return loaded


def make_policy(section: FromScratch, vocabulary: Vocabulary) -> LoadedModel:
    """Make a small Llama with random weights, from the current random state."""
    tokenizer = vocabulary.tokenizer
    device = pick_device()
    model = LlamaForCausalLM(_llama_config(section, tokenizer))
    nn.Module.to(model, device)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    return LoadedModel(model, model, vocabulary, device, "from_scratch", "")


def count_parameters(section: Model, vocabulary: Vocabulary) -> tuple[int, int]:
    """Count all and trainable parameters without reading weights."""
    model = model_without_weights(section, vocabulary)
    return num_parameters(model), num_parameters(model, trainable_only=True)


def model_without_weights(section: Model, vocabulary: Vocabulary) -> PreTrainedModel:
    """Build the configured model, adapters included, with shapes only."""
    with torch.device("meta"):
        if section.from_scratch is not None:
            model: PreTrainedModel = LlamaForCausalLM(
                _llama_config(section.from_scratch, vocabulary.tokenizer)
            )
        else:
            assert section.path is not None
            name = locate(section.path, section.revision).name
            config = _config(section, name)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=section.trust_remote_code)
            fit_embeddings(model, vocabulary.tokenizer)
        if section.lora is not None:
            model = wrap_lora(model, section.lora, task="CAUSAL_LM")
    return model


def parameters_in_words(section: Model, vocabulary: Vocabulary) -> str:
    """Say how large the model is and how much of it learns."""
    total, trainable = count_parameters(section, vocabulary)
    return f"model: {total:,} parameters, {trainable:,} trainable"


def _llama_config(section: FromScratch, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=section.hidden_size,
        intermediate_size=round(section.hidden_size * 8 / 3 / 16) * 16,
        num_hidden_layers=section.num_layers,
        num_attention_heads=section.num_heads,
        max_position_embeddings=section.max_positions,
        tie_word_embeddings=True,
        initializer_range=section.hidden_size**-0.5,  # first logits of unit scale, whatever the width
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def wrap_lora(model: PreTrainedModel, lora: Lora, *, task: str) -> PreTrainedModel:
    """Freeze a model and add trainable low-rank adapters (Hu et al. 2021); `task` is CAUSAL_LM or SEQ_CLS."""
    from peft import LoraConfig, get_peft_model  # a third of a second that runs without LoRA do not pay

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works, and rank-independent scales need one
        lora_dropout=lora.dropout,
        target_modules=lora.target,
        task_type=task,
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers
    )
    try:
        with quiet_peft():
            wrapped = get_peft_model(model, config)
    except ValueError as error:
        fix = "set it to all-linear, or name layers of this model"
        raise ConfigError(str(error), where="model.lora.target", fix=fix) from error
    # Adapters learn in fp32 whatever the base is kept in.
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return cast(PreTrainedModel, wrapped)  # quacks like one: attributes pass through to the model inside


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence a warning that is not the user's: peft asks transformers by a name it is about to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow the embedding when the tokenizer gained a PAD beyond it, and tell the model its PAD.

    The new row is the same each time: a policy and its reference differ in nothing else either.
    """
    if len(tokenizer) > next(model.get_input_embeddings().parameters()).shape[0]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            has_weights = model.device.type != "meta"
            model.resize_token_embeddings(len(tokenizer), mean_resizing=has_weights)
    model.config.pad_token_id = tokenizer.pad_token_id


def _positions_of(config: PretrainedConfig) -> int | None:
    limit = config.to_dict().get("max_position_embeddings")
    return int(limit) if limit else None


def attention_kwargs(attention: str) -> dict[str, str]:
    """Translate `model.attention` for `from_pretrained`."""
    return {} if attention == "auto" else {"attn_implementation": attention}


def quiet_loading() -> None:
    """Silence transformers' progress bars and load reports; stderr is for ours."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
