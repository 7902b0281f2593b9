"""`fit`: the one training loop. It pulls steps from a source, minimises an objective, and keeps the books.

A PPO run and an SFT run differ in their source and their objective only.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Checkpoint, Eval, Log
from rlhf_cli.errors import DivergedError, Preempted
from rlhf_cli.run.metrics import Mean, merge
from rlhf_cli.run.progress import Bar
from rlhf_cli.run.session import Run
from rlhf_cli.run.signals import Stopped
from rlhf_cli.training.checkpoint import Checkpoint as SavedCheckpoint
from rlhf_cli.training.guards import BadSteps, NotFinite, too_many_bad_steps
from rlhf_cli.training.optim import Updater
from rlhf_cli.training.parts import BatchSource, Learner
from rlhf_cli.training.saving import Saver
from rlhf_cli.training.stepping import Stepper

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often things happen, in optimizer steps, and how many checkpoints stay."""

    log: int
    evaluate: int
    checkpoint: int
    keep: int

    @staticmethod
    def of(log: Log, evaluation: Eval, checkpoint: Checkpoint) -> "Cadence":
        """Take it from the configuration."""
        return Cadence(log.every_steps, evaluation.every_steps, checkpoint.every_steps, checkpoint.keep)


class Trainer(Generic[B]):
    """One training run: what is learned, from which batches, by which updates.

    may_recompute   models that may trade time for memory, where one row alone does not fit
    """

    def __init__(
        self,
        run: Run,
        source: BatchSource[B],
        learner: Learner[B],
        updater: Updater,
        cadence: Cadence,
        *,
        may_recompute: Sequence[PreTrainedModel] = (),
    ) -> None:
        self._run = run
        self._ranks = run.ranks
        self._source = source
        self._learner = learner
        self._updater = updater
        self._cadence = cadence
        self._stepper = Stepper(source, learner, updater, run.say, may_recompute)
        self._saver = Saver(run, updater, keep=cadence.keep)
        self._bad_steps = BadSteps()
        self._place: dict[str, object] | None = None  # of the source, where it can go back to ahead of a step
        self._window: dict[str, Mean] = {}
        self._saved_step = self._tried_step = 0
        self._evaluated_step = -cadence.evaluate  # a run begins with an evaluation

    def fit(self) -> dict[str, float]:
        """Train to the end, from the newest checkpoint if there is one. Returns the newest value of every metric.

        Raises Preempted with a checkpoint on disk when asked to stop, DivergedError when numbers break,
        ResourceError when memory or disk do not suffice.
        """
        if not self._ranks.leads:  # dropout of its own
            torch.manual_seed(torch.initial_seed() + self._ranks.index)
        self._resume()
        self._saver.preflight()
        self._stepper.rehearse()
        self._run.event("training", step=self._updater.step_count)
        with (
            self._run.stop.deferred(),
            self._run.progress(self._source.num_steps, start=self._updater.step_count) as bar,
        ):
            try:
                while not self._walk(bar):
                    continue
            except (Preempted, Stopped):  # also while sampling, which happens at boundaries only
                self._save(must=True)
                raise Preempted(
                    f"interrupted after step {self._updater.step_count}, checkpoint saved",
                    fix="run the same command again to go on",
                ) from None
        self._bad_steps.require_any_taken(self._source.num_steps)
        if self._ranks.stop_requested:
            raise Stopped  # the rest can be done by the next process as well
        return self._newest_metrics()

    def _walk(self, bar: Bar) -> bool:
        """Walk to the end; False where numbers broke and training went back to its last checkpoint."""
        try:
            self._evaluate_if_due(bar)
            self._mark_place()
            for micro_batches in self._source:
                self._step(micro_batches)
                self._after_step(bar)
                self._stop_if_asked()
                self._mark_place()
            self._save(must=True)
        except DivergedError as error:
            self._go_back(error)
            return False
        return True

    def _mark_place(self) -> None:
        self._place = self._source.state_dict() if self._source.at_boundary else None

    def _step(self, micro_batches: Sequence[B]) -> None:
        """Take one step, or leave it out where its numbers are not finite."""
        step = self._updater.step_count + 1
        if step in self._bad_steps.left_out:
            self._updater.skip()
            return
        try:
            metrics = self._stepper.take(micro_batches, should_stop=self._may_stop_inside)
        except Preempted:
            assert self._place is not None
            self._source.load_state_dict(self._place)
            raise
        except NotFinite as problem:
            self._leave_out(step, problem)
        else:
            self._window = merge([self._window, metrics])

    def _may_stop_inside(self) -> bool:
        return self._run.stop.requested and self._place is not None

    def _leave_out(self, step: int, problem: NotFinite) -> None:
        self._run.event("step_left_out", step=step, reason=problem.message, rows=list(problem.rows))
        self._run.say(f"warning: {problem.message}; the step is left out, events.jsonl names its rows")
        if self._bad_steps.note(step):
            raise too_many_bad_steps(problem) from problem
        self._updater.skip()

    def _go_back(self, error: DivergedError) -> None:
        """Return to the newest checkpoint, once in a run; raise the error where there is none."""
        checkpoint = None if self._bad_steps.went_back else self._saver.load()
        if checkpoint is None:
            raise error
        self._bad_steps.go_back()
        self._restore(checkpoint)
        left_out = self._bad_steps.left_out
        self._run.event("went_back", step=checkpoint.step, reason=error.message, left_out=left_out)
        without = f", to leave out {', '.join(map(str, left_out))}" if left_out else ""
        self._run.say(f"warning: {error.message}; back to step {checkpoint.step}{without}")

    def _after_step(self, bar: Bar) -> None:
        step = self._updater.step_count
        last = step == self._source.num_steps
        if step % self._cadence.log == 0 or last:
            values = {name: mean.value for name, mean in self._window.items()} | dict(self._source.facts())
            self._run.note_metrics(step, values)
            self._window = {}
            bar.update(step, values)
        else:
            bar.update(step)
        self._evaluate_if_due(bar)
        since = step - max(self._saved_step, self._tried_step)
        if self._source.at_boundary and since >= self._cadence.checkpoint:
            self._save(must=False)

    def _stop_if_asked(self) -> None:
        if self._source.at_boundary and self._ranks.stop_requested:
            raise Preempted("asked to stop")

    def _evaluate_if_due(self, bar: Bar) -> None:
        """Evaluate at boundaries only: an evaluation that samples may be interrupted, and is then made up for."""
        step = self._updater.step_count
        num_since = step - self._evaluated_step
        due = num_since >= self._cadence.evaluate or (step == self._source.num_steps and num_since > 0)
        if not self._source.at_boundary or not due:
            return
        # Nothing of it needs saving; several processes stop together, between micro-batches.
        with self._run.stop.immediate() if self._ranks.size == 1 else nullcontext():
            values = {f"eval/{name}": value for name, value in self._learner.evaluate().items()}
        self._evaluated_step = step
        if not values:
            return
        self._run.note_metrics(step, values)
        words = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        self._run.say(f"step={step} {words}")
        bar.update(step)

    def _newest_metrics(self) -> dict[str, float]:
        newest: dict[str, float] = {}
        for row in self._run.metrics.read():
            newest |= row
        return {name: value for name, value in newest.items() if name not in ("step", "time")}

    def _save(self, *, must: bool) -> None:
        step = self._updater.step_count
        if 0 < step == self._saved_step:
            return
        self._tried_step = step
        window = {name: [mean.total, mean.weight] for name, mean in self._window.items()}
        state = {"step": step, "window": window, "source": self._source.state_dict()}
        if self._saver.save(step, state | {"bad_steps": self._bad_steps.state_dict()}, must=must):
            self._saved_step = step

    def _resume(self) -> None:
        checkpoint = self._saver.load()
        if checkpoint is None:
            self._run.metrics.truncate_after(-1)
            return
        bad_steps = checkpoint.state["bad_steps"]
        assert isinstance(bad_steps, dict)
        self._bad_steps = BadSteps(**bad_steps)
        self._restore(checkpoint)
        self._run.resumed(checkpoint.step)

    def _restore(self, checkpoint: SavedCheckpoint) -> None:
        self._saver.restore(checkpoint)
        window, source = checkpoint.state["window"], checkpoint.state["source"]
        assert isinstance(window, dict)
        assert isinstance(source, dict)
        self._window = {name: Mean(total, weight) for name, (total, weight) in window.items()}
        self._source.load_state_dict(source)
        self._saved_step = self._tried_step = checkpoint.step
        self._run.metrics.truncate_after(checkpoint.step)
        self._evaluated_step = self._ranks.lead(self._find_evaluated_step)

    def _find_evaluated_step(self) -> int:
        steps = [row["step"] for row in self._run.metrics.read() if any(k.startswith("eval/") for k in row)]
        return int(max(steps, default=-self._cadence.evaluate))
