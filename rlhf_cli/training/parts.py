"""What a stage hands to `fit`: where batches come from, and what to minimise.

A learner returns sums and weights, never means; `fit` alone divides, once per optimizer step, so the gradient
does not depend on how a step is cut into micro-batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from rlhf_cli.run.metrics import Mean

B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Loss:
    """A differentiable sum over the micro-batch, the weight it stands for (tokens, pairs), metrics, and tokens read.

    Two micro-batches of 3 and 5 tokens: Loss(6.0, 3), Loss(2.5, 5) -> the step's loss is 8.5 / 8.
    """

    total: Tensor
    weight: float
    metrics: Mapping[str, Mean] = field(default_factory=dict)
    num_tokens: int = 0


class Learner(Protocol[B_contra]):
    """What is learned: the loss of one micro-batch, and how good the model is by now."""

    def objective(self, batch: B_contra, /) -> Loss:
        """Compute the loss with the model being trained."""
        ...

    def rows(self, batch: B_contra, /) -> Sequence[str]:
        """Name the rows of a micro-batch, as messages about it should."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Measure the model on held-out data, without touching any state of training; {} when there is none."""
        ...


class BatchSource(Protocol[B_co]):
    """Yields optimizer steps, each as this process's share of its micro-batches, from wherever it stands.

    Its state is small and JSON; it is only asked for while `at_boundary`, and describes the position before the
    next step. A source that samples may raise Preempted while it works; its state is then that of the boundary.
    """

    @property
    def num_steps(self) -> int: ...

    @property
    def at_boundary(self) -> bool: ...

    @property
    def num_idle(self) -> int:
        """Count the micro-batches at the end of the step yielded last that other processes count."""
        ...

    def __iter__(self) -> Iterator[Sequence[B_co]]: ...

    def largest(self) -> B_co | None:
        """Make the micro-batch that takes the most memory of all to come; None when there is none to come."""
        ...

    def shrink(self) -> bool:
        """Halve the micro-batches from here on; False where a step cannot be cut."""
        ...

    def again(self) -> Sequence[B_co]:
        """Give the step yielded last once more, as it is cut by now."""
        ...

    def facts(self) -> Mapping[str, float]:
        """Give metrics of the data itself (epoch, rewards) for the next logged line."""
        ...

    def state_dict(self) -> dict[str, object]: ...

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...
