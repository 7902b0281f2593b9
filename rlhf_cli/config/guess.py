"""Tell which stage a configuration file is for, when nobody says so."""

import re
from collections.abc import Sequence
from pathlib import Path

from rlhf_cli.config.compose import compose
from rlhf_cli.errors import UsageError

# Keys that only one stage has.
_OWN_KEYS = {
    "collect": {"prompts", "candidates", "labeler", "generation", "constitution"},
    "ppo": {"ppo", "rollout", "reward", "critic"},
    "dpo": {"reference", "loss.type", "loss.beta", "loss.sft_weight"},
    "train-rm": {"loss.ties", "loss.margin", "loss.center"},
    "sft": {"loss.on"},
}
_MODELINE = re.compile(
    rf"#\s*(?:rlhf:\s*|yaml-language-server:\s*\$schema=(?:\S*/)?)({'|'.join(_OWN_KEYS)})(?:\.schema\.json)?\s*$"
)


def guess_stage(path: Path, overrides: Sequence[str] = ()) -> str:
    """Return the stage that line 1 names (`# rlhf: sft`, or a $schema modeline), else the one with such keys.

    Keys of extended files and of overrides count. PPO has a `reference` too, so its keys are tried before
    those of DPO. Raises UsageError where nothing tells, MissingInputError and ConfigError as `load_config`.
    """
    document, source = compose(path, overrides, None)
    if named := _MODELINE.match(source.text.partition("\n")[0]):
        return named[1]
    loss = document.data.get("loss")
    keys = {*document.data, *(f"loss.{key}" for key in (loss if isinstance(loss, dict) else ()))}
    for stage, own in _OWN_KEYS.items():
        if keys & own:
            return stage
    raise UsageError(
        "the keys of this file do not tell which stage it is for",
        where=str(path),
        fix=f"Make its first line `# rlhf: STAGE` ({', '.join(_OWN_KEYS)}); `rlhf check` also takes --stage.",
    )
