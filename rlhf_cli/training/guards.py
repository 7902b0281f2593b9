"""What keeps broken numbers out of weights and checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.errors import DivergedError

_MOST_BAD, _AMONG = 3, 100
_FIX = "lower optim.lr; checkpoints are from before this step"


class NotFinite(DivergedError):
    """The loss or the gradient of one step is NaN or infinite; `rows` names the rows it came from."""

    rows: Sequence[str] = ()


@dataclass
class BadSteps:
    """The steps left out because their numbers were not finite.

    Three among a hundred send training back to its last checkpoint, once; the steps that did it are then left out
    without being tried.
    """

    recent: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    went_back: bool = False

    def note(self, step: int) -> bool:
        """Note a bad step; say whether there are too many by now."""
        self.recent = [*(old for old in self.recent if old > step - _AMONG), step]
        return len(self.recent) >= _MOST_BAD

    def go_back(self) -> None:
        """Leave out from now on what was bad."""
        self.left_out += self.recent
        self.recent, self.went_back = [], True

    def require_any_taken(self, num_steps: int) -> None:
        """Raise DivergedError where every step of a run was left out, so that nothing was learned."""
        if num_steps and len(self.recent) + len(self.left_out) >= num_steps:
            raise DivergedError(f"all {num_steps} steps had to be left out", where="optim.lr", fix=_FIX)

    def state_dict(self) -> dict[str, object]:
        """Give everything as JSON."""
        return {"recent": self.recent, "left_out": self.left_out, "went_back": self.went_back}


def too_many_bad_steps(problem: NotFinite) -> DivergedError:
    """Make the error that ends a run, or sends it back."""
    return DivergedError(
        f"{_MOST_BAD} of {_AMONG} steps had to be left out; the last: {problem.message}",
        where="optim.lr",
        fix="lower optim.lr, or look at the rows that events.jsonl names; checkpoints are from before they came up",
    )


def require_finite(tensors: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    """Raise DivergedError where a value is NaN or infinite: such a checkpoint must not push out good ones."""
    for group in tensors.values():
        for name, value in group.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise DivergedError(f"{name} is not finite after step {step}", where="optim.lr", fix=_FIX)
