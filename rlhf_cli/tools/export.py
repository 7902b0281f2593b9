"""`rlhf export`: a model to hand on: adapters merged in, in one dtype, in shards, with a card, and checked.

What is written is loaded again with plain transformers and must give the log-probs (a reward model: the scores) that
the model had here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from rlhf_cli.config.sections import Model
from rlhf_cli.errors import DataError, RunConflictError
from rlhf_cli.models.heads import load_classifier
from rlhf_cli.models.load import (
    LoadedModel,
    load_policy_for_sampling,
    load_vocabulary,
    quiet_loading,
    quiet_peft,
)
from rlhf_cli.models.locate import locate
from rlhf_cli.models.save import save_model
from rlhf_cli.tools.model_card import write_card

Dtype = Literal["float32", "bfloat16", "float16"]
# The largest difference of a log-prob, in nats, or of a score. Half precision rounds weights to 2 or 3 digits.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
_PROBE = (4, 48)


@dataclass(frozen=True)
class Exported:
    """What was written, and by how much it differs from the model it came from."""

    path: Path
    dtype: str
    files: int
    megabytes: float
    largest_difference: float


def export(source: str, out: Path, *, dtype: Dtype, shard_size: str, base: str | None = None) -> Exported:
    """Write the model of a run, of a directory or of a PEFT adapter (on `base`, else on its own) to `out`.

    Raises RunConflictError where `out` holds something, DataError where what was written gives other numbers.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunConflictError(f"{out} is not empty", where=str(out), fix="Choose another directory.")
    out = out.absolute()
    loaded = _load(source, base)
    before = _probe(loaded.core)
    nn.Module.to(loaded.core, _DTYPES[dtype])
    save_model(loaded.core, loaded.vocabulary, out, shard_size=shard_size)
    difference = float((_probe(_reload(loaded.core, out)) - before).abs().max())
    if not difference <= _TOLERANCES[dtype]:
        raise DataError(
            f"the exported model differs by up to {difference:.3g}, more than {dtype} explains",
            where=str(out),
            fix="Export it in float32.",
        )
    write_card(source, out, dtype)
    weights = list(out.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights) / 1e6
    return Exported(out, dtype, len(weights), size, difference)


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _load(source: str, base: str | None) -> LoadedModel:
    folder = Path(source)
    if (folder / "adapter_config.json").exists():
        return _merged(folder, base)
    if base is not None:
        raise DataError(
            f"{source} is no adapter, so it needs no base",
            where=source,
            fix="Leave --base out, or give the adapter directory.",
        )
    name = locate(source).name
    architectures = AutoConfig.from_pretrained(name).architectures or []
    if any("SequenceClassification" in it for it in architectures):
        section = Model(path=source)
        return load_classifier(section, load_vocabulary(section), new_head_seed=None)
    return load_policy_for_sampling(source)


def _merged(adapter: Path, base: str | None) -> LoadedModel:
    """Merge an adapter into its base, in fp32: in less, small updates would be rounded away."""
    from peft import PeftConfig, PeftModel, TaskType

    config = PeftConfig.from_pretrained(str(adapter))
    path = base or config.base_model_name_or_path
    if not path:
        raise DataError(
            "the adapter does not say its base model", where=str(adapter), fix="Give --base MODEL."
        )
    section = Model(path=path)
    vocabulary = load_vocabulary(section)
    if config.task_type == TaskType.SEQ_CLS:
        loaded = load_classifier(section, vocabulary, new_head_seed=0)
    else:
        loaded = load_policy_for_sampling(path)
    with quiet_peft():
        wrapped = PeftModel.from_pretrained(loaded.core, str(adapter))
    core = cast(PreTrainedModel, wrapped.merge_and_unload())
    return LoadedModel(core, core, vocabulary, loaded.device, str(adapter), loaded.digest)


def _reload(original: PreTrainedModel, out: Path) -> PreTrainedModel:
    auto = AutoModelForCausalLM if original.can_generate() else AutoModelForSequenceClassification
    quiet_loading()
    model = auto.from_pretrained(out)
    nn.Module.to(model, original.device)
    return cast(PreTrainedModel, model)


@torch.no_grad()
def _probe(model: PreTrainedModel) -> Tensor:
    """Give the log-probs of some fixed rows, or a classifier's scores of them; computed in fp32."""
    nn.Module.to(model.eval(), torch.float32)
    generator = torch.Generator().manual_seed(0)
    vocab_size = next(model.get_input_embeddings().parameters()).shape[0]
    width = min(_PROBE[1], model.config.to_dict().get("max_position_embeddings") or _PROBE[1])
    input_ids = torch.randint(vocab_size, (_PROBE[0], width), generator=generator)
    if model.config.pad_token_id is not None:
        input_ids[input_ids == model.config.pad_token_id] = (model.config.pad_token_id + 1) % vocab_size
    input_ids = input_ids.to(model.device)
    output = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False)
    if not model.can_generate():
        return cast(Tensor, output.logits.double().cpu())
    logprobs = output.logits[:, :-1].log_softmax(-1)
    return cast(Tensor, logprobs.gather(-1, input_ids[:, 1:, None]).double().cpu())
