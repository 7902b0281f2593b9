"""What to do about a key that does not belong: a ladder of guesses from the nearest to the widest."""

import difflib
from typing import Any

from rlhf_cli.config.base import Section
from rlhf_cli.config.model_tree import key_paths, sections_in
from rlhf_cli.config.problems import KeyPath, dotted
from rlhf_cli.config.stages import STAGES

CLOSE = 0.75

_SPECIAL = {
    ("ppo", "train.batch_size"): "in ppo this is `rollout.batch_size` (prompts per iteration), "
    "split into `ppo.minibatches`",
}

# Names of the same thing in other trainers; the first path that the stage has is offered.
_ALIASES = {
    "learning_rate": ("optim.lr",),
    "adam_epsilon": ("optim.eps",),
    "warmup_ratio": ("optim.warmup",),
    "warmup_steps": ("optim.warmup",),
    "lr_scheduler_type": ("optim.schedule",),
    "max_grad_norm": ("optim.clip_norm",),
    "num_train_epochs": ("train.epochs",),
    "num_epochs": ("train.epochs",),
    "per_device_train_batch_size": ("train.batch_size", "rollout.batch_size"),
    "gradient_accumulation_steps": ("train.micro_tokens",),
    "micro_batch_size": ("train.micro_tokens",),
    "bf16": ("train.precision",),
    "fp16": ("train.precision",),
    "torch_dtype": ("model.dtype",),
    "attn_implementation": ("model.attention",),
    "model_name_or_path": ("model.path",),
    "model_name": ("model.path",),
    "base_model": ("model.path",),
    "adapter": ("model.lora",),
    "lora_r": ("model.lora.rank",),
    "r": ("model.lora.rank",),
    "lora_alpha": ("model.lora.alpha",),
    "lora_dropout": ("model.lora.dropout",),
    "target_modules": ("model.lora.target",),
    "lora_target": ("model.lora.target",),
    "ref_model": ("reference",),
    "output_dir": ("run_dir",),
    "logging_steps": ("log.every_steps",),
    "save_steps": ("checkpoint.every_steps",),
    "save_total_limit": ("checkpoint.keep",),
    "eval_steps": ("eval.every_steps",),
    "dataset": ("data.train", "prompts"),
    "datasets": ("data.train", "prompts"),
    "dataset_name": ("data.train", "prompts"),
    "max_seq_length": ("data.max_length",),
    "max_seq_len": ("data.max_length",),
    "sequence_len": ("data.max_length",),
    "cutoff_len": ("data.max_length",),
    "val_size": ("data.eval_fraction",),
    "max_completion_length": ("rollout.max_new_tokens", "generation.max_new_tokens"),
    "response_length": ("rollout.max_new_tokens", "generation.max_new_tokens"),
    "loss_type": ("loss.type",),
    "train_on_inputs": ("loss.on",),
    "kl_coef": ("ppo.kl.coef",),
    "init_kl_coef": ("ppo.kl.coef",),
    "beta": ("loss.beta", "ppo.kl.coef"),
    "cliprange": ("ppo.clip",),
    "cliprange_value": ("ppo.value_clip",),
    "vf_coef": ("ppo.value_coef",),
    "num_ppo_epochs": ("ppo.epochs",),
    "num_mini_batches": ("ppo.minibatches",),
    "reward_model": ("reward",),
    "reward_model_path": ("reward",),
}


def unknown_key_help(stage: str, owner: type[Section], path: KeyPath) -> str:
    """Say what to do about the unknown key at `path`, which stands in the section `owner`."""
    key = str(path[-1])
    if (stage, dotted(path)) in _SPECIAL:
        return _SPECIAL[stage, dotted(path)]
    return (
        _spelling(owner, key)
        or _elsewhere(STAGES[stage], key)
        or _alias(STAGES[stage], key)
        or _foreign(stage, path)
        or _valid_keys(owner)
    )


def missing_help(owner: type[Section], path: KeyPath) -> str:
    """Say what a required key is for."""
    key = str(path[-1])
    description = owner.model_fields[key].description or ""
    purpose = description[:1].lower() + description[1:].rstrip(".")
    return f"add `{key}:` ({purpose})" + (", or give --run-dir" if path == ("run_dir",) else "")


def other_stage(stage: str, data: Any) -> str | None:
    """Name the one stage that a configuration fits without a misfit, when this stage does not fit."""
    if not _unknown_keys(STAGES[stage], data):
        return None
    fitting = [
        name for name, root in STAGES.items() if not _unknown_keys(root, data) and _complete(root, data)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _spelling(owner: type[Section], key: str) -> str:
    name, colon, value = key.partition(":")
    if colon and name in owner.model_fields:
        return f"write a space after the colon: `{name}: {value}`"
    first, *rest = key.split(".")
    if rest and first in owner.model_fields:
        return f"write it nested, `{first}:` with `{'.'.join(rest)}:` below it"
    close = difflib.get_close_matches(key, owner.model_fields, n=1, cutoff=CLOSE)
    return f"did you mean `{close[0]}`?" if close else ""


def _elsewhere(root: type[Section], key: str) -> str:
    found = list(dict.fromkeys(dotted(path) for path in key_paths(root) if path[-1] == key))
    return f"this key belongs at {_choice(found)}" if found else ""


def _alias(root: type[Section], key: str) -> str:
    close = [key] if key in _ALIASES else difflib.get_close_matches(key, _ALIASES, n=1, cutoff=0.85)
    known = {dotted(path) for path in key_paths(root)}
    found = next((path for name in close for path in _ALIASES[name] if path in known), None)
    return f"here this is `{found}`" if found else ""


def _foreign(stage: str, path: KeyPath) -> str:
    generic = tuple(0 if isinstance(part, int) else part for part in path)
    owners = [f"`rlhf {name}`" for name, root in STAGES.items() if generic in set(key_paths(root))]
    if not owners:
        owners = [
            f"`rlhf {name}`" for name, root in STAGES.items() if path[-1] in {p[-1] for p in key_paths(root)}
        ]
    if not owners:
        return ""
    names = ", ".join(owners[:-1]) + " and " + owners[-1] if len(owners) > 1 else owners[0]
    return f"`{dotted(path)}` belongs to {names}; this is {stage}"


def _valid_keys(owner: type[Section]) -> str:
    return f"the keys here are {', '.join(owner.model_fields)}"


def _choice(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names[:3]]
    return " or ".join(quoted)


def _unknown_keys(root: type[Section], data: Any) -> int:
    return sum(
        len(_keys_at(data, path) - set(section.model_fields)) for path, section in sections_in(root, data)
    )


def _complete(root: type[Section], data: Any) -> bool:
    """Say whether no required key is missing, run_dir aside."""
    for path, section in sections_in(root, data):
        required = {name for name, info in section.model_fields.items() if info.is_required()}
        if required - _keys_at(data, path) - {"run_dir"}:
            return False
    return True


def _keys_at(data: Any, path: KeyPath) -> set[str]:
    for part in path:
        data = data[part]
    return set(data)
