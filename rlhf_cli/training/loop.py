"""`fit`: the one training loop. It pulls steps from a source, minimises an objective, and keeps the books.

A PPO run and an SFT run differ in their source and their objective only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from rlhf_cli.config.sections import Checkpoint, Eval, Log
from rlhf_cli.errors import DivergedError, Preempted
from rlhf_cli.run.metrics import Mean, merge
from rlhf_cli.run.progress import Bar
from rlhf_cli.run.session import Run
from rlhf_cli.training.checkpoint import CheckpointStore
from rlhf_cli.training.optim import Updater
from rlhf_cli.training.parts import BatchSource, Learner

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
    """One training run: what is learned, from which batches, by which updates."""

    def __init__(
        self, run: Run, source: BatchSource[B], learner: Learner[B], updater: Updater, cadence: Cadence
    ) -> None:
        self._run = run
        self._source = source
        self._learner = learner
        self._updater = updater
        self._cadence = cadence
        self._store = CheckpointStore(run.dir.checkpoints, run.manifest.id, keep=cadence.keep, warn=run.say)
        self._window: dict[str, Mean] = {}
        self._saved_step = 0
        self._evaluated_step = -cadence.evaluate  # a run begins with an evaluation

    def fit(self) -> dict[str, float]:
        """Train to the end, from the newest checkpoint if there is one. Returns the newest value of every metric.

        Raises Preempted with a checkpoint on disk when asked to stop, DivergedError when numbers break.
        """
        self._resume()
        self._run.event("training", step=self._updater.step_count)
        with self._run.progress(self._source.num_steps, start=self._updater.step_count) as bar:
            try:
                self._evaluate_if_due(bar)
                for micro_batches in self._source:
                    self._step(micro_batches)
                    self._after_step(bar)
                    self._stop_if_asked()
            except Preempted:  # also while sampling, which happens at boundaries only
                self._save()
                raise Preempted(
                    f"interrupted after step {self._updater.step_count}, checkpoint saved",
                    fix="run the same command again to go on",
                ) from None
        self._save()
        return self._newest_metrics()

    def _step(self, micro_batches: Sequence[B]) -> None:
        """Accumulate the gradient sums of one step, divide once, and update."""
        weight, num_tokens = 0.0, 0
        for batch in micro_batches:
            loss = self._learner.objective(batch)
            if not bool(torch.isfinite(loss.total)):
                raise DivergedError(
                    f"the loss is not finite at step {self._updater.step_count + 1}",
                    where="optim.lr",
                    fix="lower optim.lr; the last checkpoint is from before this step",
                )
            torch.autograd.backward(loss.total)
            weight += loss.weight
            num_tokens += loss.num_tokens
            loss_mean = {"loss": Mean(float(loss.total.detach()), loss.weight)}
            self._window = merge([self._window, loss_mean, loss.metrics])
        facts = self._updater.step(weight) | ({"tokens": float(num_tokens)} if num_tokens else {})
        self._window = merge([self._window, {name: Mean(value, 1.0) for name, value in facts.items()}])

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
        if self._source.at_boundary and step - self._saved_step >= self._cadence.checkpoint:
            self._save()

    def _stop_if_asked(self) -> None:
        if self._run.stop.requested and self._source.at_boundary:
            raise Preempted("asked to stop")

    def _evaluate_if_due(self, bar: Bar) -> None:
        """Evaluate at boundaries only: an evaluation that samples may be interrupted, and is then made up for."""
        step = self._updater.step_count
        num_since = step - self._evaluated_step
        due = num_since >= self._cadence.evaluate or (step == self._source.num_steps and num_since > 0)
        if not self._source.at_boundary or not due:
            return
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

    def _save(self) -> None:
        step = self._updater.step_count
        if 0 < step == self._saved_step:
            return
        self._require_finite()
        tensors = {
            "model": {name: p.data for role in self._updater.roles for name, p in role.parameters()},
            "optimizer": self._updater.state_tensors(),
            "rng": _rng_tensors(),
        }
        window = {name: [mean.total, mean.weight] for name, mean in self._window.items()}
        self._store.save(step, tensors, {"step": step, "window": window, "source": self._source.state_dict()})
        self._saved_step = step
        self._run.checkpointed(step)

    def _require_finite(self) -> None:
        """Raise DivergedError where a weight is NaN or infinite: such weights must not push out good ones."""
        for role in self._updater.roles:
            for name, parameter in role.parameters():
                if not bool(torch.isfinite(parameter).all()):
                    raise DivergedError(
                        f"{name} is not finite after step {self._updater.step_count}",
                        where="optim.lr",
                        fix="lower optim.lr; the last checkpoint is from before this step",
                    )

    def _resume(self) -> None:
        checkpoint = self._store.load_latest()
        if checkpoint is None:
            self._run.metrics.truncate_after(-1)
            return
        with torch.no_grad():
            for role in self._updater.roles:
                for name, parameter in role.parameters():
                    parameter.copy_(checkpoint.tensors["model"][name])
        self._updater.load_state_tensors(checkpoint.tensors["optimizer"], checkpoint.step)
        _set_rng(checkpoint.tensors["rng"])
        state = checkpoint.state
        window, source = state["window"], state["source"]
        assert isinstance(window, dict)
        assert isinstance(source, dict)
        self._window = {name: Mean(total, weight) for name, (total, weight) in window.items()}
        self._source.load_state_dict(source)
        self._saved_step = checkpoint.step
        self._run.metrics.truncate_after(checkpoint.step)
        evaluated = [
            row["step"] for row in self._run.metrics.read() if any(k.startswith("eval/") for k in row)
        ]
        self._evaluated_step = int(max(evaluated, default=self._evaluated_step))
        self._run.resumed(checkpoint.step)


def _rng_tensors() -> dict[str, torch.Tensor]:
    """Collect the generators that dropout draws from; all else has generators of its own."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def _set_rng(tensors: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
