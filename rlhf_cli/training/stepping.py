"""Optimizer steps that are taken whole or not at all, in micro-batches that fit into memory."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from rlhf_cli.errors import Preempted, ResourceError
from rlhf_cli.run.failures import is_out_of_memory
from rlhf_cli.run.metrics import Mean, merge
from rlhf_cli.training.guards import NotFinite
from rlhf_cli.training.memory import peak_in_words, release_memory, rng_tensors, set_rng
from rlhf_cli.training.optim import Updater
from rlhf_cli.training.parts import BatchSource, Learner, Loss

B = TypeVar("B")

_LESS_MEMORY = (
    "lower data.max_length, set train.gradient_checkpointing: true or precision: bfloat16, or train a LoRA"
)


class Stepper(Generic[B]):
    """Takes steps; one that fails leaves weights, gradients and generators as they were."""

    def __init__(
        self, source: BatchSource[B], learner: Learner[B], updater: Updater, say: Callable[[str], None]
    ) -> None:
        self._source = source
        self._learner = learner
        self._updater = updater
        self._say = say

    def take(self, micro_batches: Sequence[B], *, should_stop: Callable[[], bool]) -> dict[str, Mean]:
        """Accumulate the gradient sums of one step, divide once, and update. Returns metrics.

        Raises NotFinite for numbers that are not, Preempted when asked to stop, ResourceError when one row alone
        does not fit into memory; the step is then undone.
        """
        rng = rng_tensors()
        try:
            weight, metrics = self._accumulate(micro_batches, should_stop, rng)
            facts = self._updater.step(weight)
        except NotFinite as problem:
            self._undo(rng)
            problem.rows = problem.rows or [row for part in micro_batches for row in self._learner.rows(part)]
            raise
        except Preempted:
            self._undo(rng)
            raise
        return merge([metrics, {name: Mean(value, 1.0) for name, value in facts.items()}])

    def rehearse(self) -> None:
        """Go through the largest micro-batch that will come, so that too little memory shows before the first step."""
        rng = rng_tensors()
        with self._updater.memory_reserved(), suppress(NotFinite):  # the step itself will name its rows
            while (largest := self._source.largest()) is not None and self._backward(largest) is None:
                self._make_smaller(largest)
                self._undo(rng)
        self._undo(rng)

    def _accumulate(
        self, micro_batches: Sequence[B], should_stop: Callable[[], bool], rng: dict[str, torch.Tensor]
    ) -> tuple[float, dict[str, Mean]]:
        weight, num_tokens, metrics = 0.0, 0, dict[str, Mean]()
        for batch in micro_batches:
            if should_stop():
                raise Preempted("asked to stop")
            loss = self._backward(batch)
            if loss is None:
                self._make_smaller(batch)
                self._undo(rng)
                return self._accumulate(self._source.again(), should_stop, rng)
            weight, num_tokens = weight + loss.weight, num_tokens + loss.num_tokens
            metrics = merge([metrics, {"loss": Mean(float(loss.total), loss.weight)}, loss.metrics])
        return weight, metrics | ({"tokens": Mean(float(num_tokens), 1.0)} if num_tokens else {})

    def _backward(self, batch: B) -> Loss | None:
        """Add the gradient of one micro-batch; None where memory runs out."""
        try:
            loss = self._learner.objective(batch)
            if not bool(torch.isfinite(loss.total)):
                problem = NotFinite(
                    f"the loss is not finite at step {self._updater.step_count + 1}", where="optim.lr"
                )
                problem.rows = self._learner.rows(batch)
                raise problem
            torch.autograd.backward(loss.total)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None  # with the error go the frames that still hold the memory
        return replace(loss, total=loss.total.detach())

    def _make_smaller(self, batch: B) -> None:
        """Halve the micro-batches of this and all later steps; the gradient stays a sum over the same rows."""
        num_rows = len(self._learner.rows(batch))
        step = self._updater.step_count + 1
        if num_rows < 2:
            raise ResourceError(
                f"out of memory at step {step}: one row alone does not fit; the peak was {peak_in_words()}",
                where="data.max_length",
                fix=_LESS_MEMORY,
            )
        if not self._source.shrink():
            raise ResourceError(
                f"out of memory at step {step}, and this loss needs its {num_rows} rows at once;"
                f" the peak was {peak_in_words()}",
                where="train.batch_size",
                fix=f"lower train.batch_size; or {_LESS_MEMORY}",
            )
        self._say(
            f"warning: out of memory at step {step} with {num_rows} rows in a micro-batch; micro-batches are halved"
            " from here on (train.micro_tokens), which changes no gradient"
        )

    def _undo(self, rng: dict[str, torch.Tensor]) -> None:
        self._updater.clear()
        set_rng(rng)
        release_memory()
