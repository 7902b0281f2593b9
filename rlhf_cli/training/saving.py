"""What a checkpoint of training holds, and what happens when the disk refuses one."""

import shutil
from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf_cli.errors import CheckpointError, ResourceError, RlhfError
from rlhf_cli.run.failures import known_failure
from rlhf_cli.run.session import Run
from rlhf_cli.training.checkpoint import Checkpoint, CheckpointStore, size_in_bytes
from rlhf_cli.training.guards import require_finite
from rlhf_cli.training.memory import rng_tensors, set_rng
from rlhf_cli.training.optim import Updater

_MOST_FAILURES = 3


class Saver:
    """Saves and restores weights, optimizer and generators, with a JSON state beside them."""

    def __init__(self, run: Run, updater: Updater, *, keep: int) -> None:
        self._run = run
        self._updater = updater
        self._keep = keep
        self._store = CheckpointStore(run.dir.checkpoints, run.manifest.id, keep=keep, warn=run.say)
        self._num_failures = 0

    def preflight(self) -> None:
        """Raise ResourceError where the disk cannot hold one checkpoint; warn where it cannot hold all."""
        weights = size_in_bytes({"model": self._weights()})
        one = 3 * weights  # AdamW keeps two moments of each
        root = self._run.dir.checkpoints
        free = shutil.disk_usage(root).free
        if free < one:
            raise ResourceError(
                f"a checkpoint takes {one / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free",
                where=str(root),
                fix="free some space, or choose a run_dir on another disk",
            )
        missing = max(0, self._keep + 1 - sum(1 for _ in root.glob("step-*")))
        if free < missing * one + weights:
            self._run.say(
                f"warning: {free / 2**20:,.0f} MiB are free on the disk; checkpoints and the model will take"
                f" {(missing * one + weights) / 2**20:,.0f} MiB (checkpoint.keep)"
            )

    def save(self, step: int, state: Mapping[str, object], *, must: bool) -> bool:
        """Publish a checkpoint; say whether it is on disk.

        A disk that refuses is warned about, and training goes on, until the third time in a row, or at once where
        training `must` not. Raises ResourceError then, and DivergedError for values that are not finite.
        """
        tensors = {"model": self._weights(), "optimizer": self._updater.state_tensors(), "rng": rng_tensors()}
        require_finite(tensors, step)
        try:
            self._run.metrics.flush()  # a checkpoint vouches for the lines up to its step
            self._store.save(step, tensors, state)
            self._run.checkpointed(step)
        except (OSError, ResourceError) as error:
            self._refused(step, error, must=must)
            return False
        self._num_failures = 0
        return True

    def _refused(self, step: int, error: OSError | ResourceError, *, must: bool) -> None:
        problem = known_failure(error)
        if problem is None:
            raise error
        self._num_failures += 1
        self._run.event("checkpoint_failed", step=step, reason=problem.message)
        if must or self._num_failures >= _MOST_FAILURES:
            raise _given_up(problem, self._num_failures)
        self._run.say(f"warning: {problem.message}; training goes on without a checkpoint of step {step}")

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, None when there never was one; CheckpointError for none left."""
        return self._store.load_latest()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put weights, optimizer and generators back."""
        saved = checkpoint.tensors["model"]
        weights = self._weights()
        for name in weights.keys() | saved.keys():
            if name not in weights or name not in saved or weights[name].shape != saved[name].shape:
                raise CheckpointError(
                    f"the checkpoint of step {checkpoint.step} is of another model: {name} differs",
                    where=str(self._run.dir.checkpoints),
                    fix="start again with --fresh (the old run is kept aside)",
                )
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(saved[name])
        self._updater.clear()
        self._updater.load_state_tensors(checkpoint.tensors["optimizer"], checkpoint.step)
        set_rng(checkpoint.tensors["rng"])

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.data for role in self._updater.roles for name, p in role.parameters()}


def _given_up(problem: RlhfError, num_failures: int) -> ResourceError:
    times = f" ({num_failures} times in a row)" if num_failures > 1 else ""
    return ResourceError(
        f"{problem.message}{times}",
        where=problem.where,
        fix="free disk space and run the same command again; it goes on from the last checkpoint",
    )
