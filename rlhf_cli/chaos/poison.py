"""Put a NaN into a training run: into a loss, into the gradients, or into a weight after an update."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlhf_cli.chaos.evidence import published
from rlhf_cli.training.parts import Loss

KINDS = ("loss", "gradient", "weight")


def poison(stage: str, kind: str, at: int, *, stays: bool) -> Callable[[], None]:
    """Make what a process does before its run, so that its `at`-th loss, gradient or update has a NaN.

    `stays`: all later ones too.
    """
    count = [0]

    def due() -> bool:
        count[0] += 1
        return count[0] >= at if stays else count[0] == at

    def poisoned_loss(total: torch.Tensor, *rest: Any, **named: Any) -> Loss:
        return Loss(total * torch.nan if due() else total, *rest, **named)

    def poisoned_backward(total: torch.Tensor, *rest: Any) -> None:
        backward(total * torch.nan if due() else total, *rest)

    def poisoned_step(optimizer: torch.optim.AdamW, *rest: Any) -> None:
        step(optimizer, *rest)
        if due():
            optimizer.param_groups[0]["params"][0].data.view(-1)[0] = torch.nan

    backward, step = torch.autograd.backward, torch.optim.AdamW.step

    def prepare() -> None:
        if kind == "loss":
            vars(importlib.import_module(f"rlhf_cli.stages.{stage.replace('-', '_')}"))["Loss"] = (
                poisoned_loss
            )
        elif kind == "gradient":
            vars(torch.autograd)["backward"] = poisoned_backward
        else:
            torch.optim.AdamW.step = poisoned_step  # type: ignore[method-assign,assignment]

    return prepare


def non_finite(root: Path) -> list[str]:
    """List the tensors with a NaN or an infinity in what a run has published."""
    files = [path for step in published(root) for path in step.glob("*.safetensors")]
    files += (root / "model").glob("*.safetensors")
    return [
        f"{path.parent.name}/{path.name}: {name}"
        for path in files
        for name, tensor in load_file(path).items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
