"""What a model's weights may be like, and what is refused.

A model that loads is not yet a good one: weights can be missing (and would be random), NaN, or those of another task.
"""

import torch
from transformers import PreTrainedModel

from rlhf_cli.errors import DataError

_SHOWN = 3


def require_whole(model: PreTrainedModel, missing: set[str], path: str) -> None:
    """Raise DataError where weights are missing, which would stay random, or not finite."""
    if missing:
        raise DataError(
            f"the weights of {path} lack {len(missing)} tensors of {type(model).__name__}: {_listed(missing)}",
            where=path,
            fix="get the model again, or give one of the right kind",
        )
    odd = {name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())}
    if odd:
        raise DataError(
            f"the weights of {path} hold NaN or infinity: {_listed(odd)}",
            where=path,
            fix="give the model of a run that did not diverge",
        )


def require_language_model(model: PreTrainedModel, path: str) -> None:
    """Raise DataError where the files were saved as a model of another task, such as a reward model."""
    kinds = [name for name in model.config.architectures or [] if name.endswith("Classification")]
    if kinds:
        raise DataError(
            f"{path} is a reward model or classifier ({kinds[0]}), and a language model is needed",
            where=path,
            fix="give the run of an sft, ppo or dpo",
        )


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")
