"""Optimizer steps that are taken whole or not at all, in micro-batches that fit into memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, NoReturn, TypeVar

import torch
from transformers import PreTrainedModel

from rlhf_cli.errors import DivergedError, Preempted, ResourceError
from rlhf_cli.models.device import recompute_activations
from rlhf_cli.run.failures import is_out_of_memory
from rlhf_cli.run.metrics import Mean, merge, merge_together
from rlhf_cli.training.guards import NotFinite
from rlhf_cli.training.memory import peak_in_words, release_memory, rng_tensors, set_rng
from rlhf_cli.training.optim import Updater
from rlhf_cli.training.parts import BatchSource, Learner, Loss

B = TypeVar("B")

_LESS_MEMORY = (
    "lower data.max_length, set train.gradient_checkpointing: true or precision: bfloat16, or train a LoRA"
)


class Stepper(Generic[B]):
    """Takes steps; one that fails leaves weights, gradients and generators as they were, on all processes."""

    def __init__(
        self,
        source: BatchSource[B],
        learner: Learner[B],
        updater: Updater,
        say: Callable[[str], None],
        may_recompute: Sequence[PreTrainedModel] = (),
    ) -> None:
        self._source = source
        self._learner = learner
        self._updater = updater
        self._ranks = updater.ranks
        self._say = say
        self._may_recompute = may_recompute

    def take(self, micro_batches: Sequence[B], *, should_stop: Callable[[], bool]) -> dict[str, Mean]:
        """Accumulate the gradient sums of one step, divide once, and update. Returns metrics over all processes.

        Raises, together, NotFinite for numbers that are not, Preempted when asked to stop, ResourceError when one
        row alone does not fit into memory; the step is then undone.
        """
        rng = rng_tensors()
        try:
            weight, metrics = self._total(*self._accumulate(micro_batches, should_stop, rng))
            facts = self._updater.step(weight)
        except NotFinite as problem:
            self._undo(rng)
            problem.rows = problem.rows or self._names_of(micro_batches)
            raise
        except Preempted:
            self._undo(rng)
            raise
        return merge([metrics, {name: Mean(value, 1.0) for name, value in facts.items()}])

    def rehearse(self) -> None:
        """Go through the largest micro-batch that will come, so that too little memory shows before the first step."""
        rng = rng_tensors()
        with self._updater.memory_reserved():
            while (largest := self._source.largest()) is not None:
                fits = self._try(largest)
                if not self._ranks.any(not fits):
                    break
                self._make_smaller(None if fits else largest)
                self._undo(rng)
        self._undo(rng)

    def _try(self, batch: B) -> bool:
        """Say whether a micro-batch fits; what is wrong with its numbers the step itself will say."""
        loss = self._forward(batch)
        return self._backward(loss, share=1.0) if isinstance(loss, Loss) else loss is not None

    def _accumulate(
        self, micro_batches: Sequence[B], should_stop: Callable[[], bool], rng: dict[str, torch.Tensor]
    ) -> tuple[float, dict[str, Mean]]:
        weight, num_tokens, metrics = 0.0, 0, dict[str, Mean]()
        num_counted = len(micro_batches) - self._source.num_idle
        too_large: B | None = None
        for number, batch in enumerate(micro_batches):
            asked = should_stop()
            if asked and self._ranks.size == 1:
                raise Preempted("asked to stop")
            loss = self._forward(batch)
            failure = loss if isinstance(loss, DivergedError) else None
            too_large = batch if loss is None else too_large
            stop, full, diverged = self._ranks.most([asked, too_large is not None, failure is not None])
            if stop:
                raise Preempted("asked to stop")
            if diverged:
                self._raise_together(failure)
            if full:
                loss = None  # or what it holds is missing when the step is tried again
                return self._once_more(too_large, should_stop, rng)
            assert isinstance(loss, Loss)
            counts = number < num_counted
            too_large = None if self._backward(loss, share=1.0 if counts else 0.0) else batch
            loss = replace(loss, total=loss.total.detach())
            if too_large is not None and self._ranks.size == 1:
                return self._once_more(too_large, should_stop, rng)
            if not counts:
                continue
            weight, num_tokens = weight + loss.weight, num_tokens + loss.num_tokens
            metrics = merge([metrics, {"loss": Mean(float(loss.total), loss.weight)}, loss.metrics])
        if self._ranks.any(too_large is not None):
            return self._once_more(too_large, should_stop, rng)
        return weight, metrics | ({"tokens": Mean(float(num_tokens), 1.0)} if num_tokens else {})

    def _once_more(
        self, too_large: B | None, should_stop: Callable[[], bool], rng: dict[str, torch.Tensor]
    ) -> tuple[float, dict[str, Mean]]:
        self._make_smaller(too_large)
        self._undo(rng)
        return self._accumulate(self._source.again(), should_stop, rng)

    def _total(self, weight: float, metrics: dict[str, Mean]) -> tuple[float, dict[str, Mean]]:
        """Add up, together, what was counted."""
        if self._ranks.size == 1:
            return weight, metrics
        merged = merge_together({"": Mean(weight, 0.0), **metrics}, self._ranks)
        if "tokens" in merged:  # each process counts its own of the same step
            merged["tokens"] = Mean(merged["tokens"].total, 1.0)
        return merged.pop("").total, merged

    def _raise_together(self, failure: DivergedError | None) -> NoReturn:
        """Raise the error of the first process that has one, with the rows that all of them name."""
        if failure is not None and self._ranks.size == 1:
            raise failure
        rows = failure.rows if isinstance(failure, NotFinite) else ()
        told = (
            [failure.message, failure.where, failure.fix, isinstance(failure, NotFinite)] if failure else None
        )
        everything = self._ranks.gather([told, list(rows)])
        message, where, fix, is_not_finite = next(each for each, _ in everything if each)
        problem = (NotFinite if is_not_finite else DivergedError)(message, where=where, fix=fix)
        if isinstance(problem, NotFinite):
            problem.rows = [row for _, names in everything for row in names]
        raise problem from failure

    def _names_of(self, micro_batches: Sequence[B]) -> list[str]:
        own = [row for part in micro_batches for row in self._learner.rows(part)]
        return [row for rows in self._ranks.gather(own) for row in rows]

    def _forward(self, batch: B) -> Loss | DivergedError | None:
        """Compute the loss of one micro-batch; None where memory runs out, or the error that its numbers are."""
        try:
            loss = self._learner.objective(batch)
        except (RuntimeError, MemoryError) as error:
            self._require_memory_error(error)
            return None  # with the error go the frames that still hold the memory
        except DivergedError as error:
            return error
        if bool(torch.isfinite(loss.total)):
            return loss
        problem = NotFinite(
            f"the loss is not finite at step {self._updater.step_count + 1}", where="optim.lr"
        )
        problem.rows = self._learner.rows(batch)
        return problem

    def _backward(self, loss: Loss, *, share: float) -> bool:
        """Add `share` times the gradient of one micro-batch; False where memory runs out."""
        try:
            torch.autograd.backward(loss.total, torch.full_like(loss.total, share))
        except (RuntimeError, MemoryError) as error:
            self._require_memory_error(error)
            return False
        return True

    def _require_memory_error(self, error: RuntimeError | MemoryError) -> None:
        """Raise any other error; where weights are shared out this one as well: the others wait in the middle."""
        if not is_out_of_memory(error):
            raise error
        if self._updater.is_shared_out:
            raise ResourceError(
                f"out of memory at step {self._updater.step_count + 1}; the peak was {peak_in_words()}",
                where="train.micro_tokens",
                fix="set train.micro_tokens to half of what it is, and run the same command again",
            ) from error

    def _make_smaller(self, too_large: B | None) -> None:
        """Halve, together, the micro-batches of this and all later steps; the gradient stays a sum over the same rows.

        Where one row alone is too much, compute its activations twice instead of keeping them, if that is allowed.
        `too_large` is what did not fit, None where only another process is full.
        """
        own = 0 if too_large is None else len(self._learner.rows(too_large))
        (num_rows,) = self._ranks.most([own])
        step = self._updater.step_count + 1
        if num_rows < 2 and self._may_recompute:
            self._recompute(step)
            return
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

    def _recompute(self, step: int) -> None:
        for model in self._may_recompute:
            recompute_activations(model)
        self._may_recompute = ()
        self._say(
            f"warning: out of memory at step {step} with one row; activations are computed twice from here on"
            " (train.gradient_checkpointing), which changes no gradient"
        )

    def _undo(self, rng: dict[str, torch.Tensor]) -> None:
        self._updater.clear()
        set_rng(rng)
        release_memory()
