"""What a checkpoint of training holds, and what happens when the disk refuses one.

A checkpoint is the same whatever the number of processes: rank 0 writes every tensor whole, reads it whole, and
deals it out. Only the generators are those of each process.
"""

import shutil
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.errors import CheckpointError, ResourceError, RlhfError
from rlhf_cli.models.parallel import fill, whole
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
        self._ranks = run.ranks
        self._updater = updater
        self._keep = keep
        self._store = CheckpointStore(run.dir.checkpoints, run.manifest.id, keep=keep, warn=run.say)
        self._num_failures = 0

    def preflight(self) -> None:
        """Raise ResourceError, together, where the disk cannot hold one checkpoint; warn where it cannot hold all."""
        self._ranks.lead(self._look_at_disk)

    def _look_at_disk(self) -> None:
        weights = size_in_bytes({"model": self._updater.weights()})
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
        """Publish a checkpoint, together; say whether it is on disk.

        A disk that refuses is warned about, and training goes on, until the third time in a row, or at once where
        training `must` not. Raises ResourceError then, and DivergedError for values that are not finite.
        """
        tensors = self._gather()
        return self._ranks.lead(lambda: self._write(step, tensors, state, must=must))

    def _write(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, object],
        *,
        must: bool,
    ) -> bool:
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
        """Return, together, the newest checkpoint that verifies, None when there never was one.

        Its tensors are on rank 0; elsewhere they have their shapes only. Raises CheckpointError for none left.
        """
        found: list[Checkpoint] = []

        def read() -> dict[str, Any] | None:
            newest = self._store.load_latest()
            found.extend([newest] if newest else [])
            return outline_of(newest) if newest and self._ranks.size > 1 else None

        outline = self._ranks.lead(read)
        if found:
            return found[0]
        return from_outline(outline) if outline else None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put weights, optimizer and generators back, together."""
        saved = checkpoint.tensors["model"]
        weights = self._updater.weights()
        for name in weights.keys() | saved.keys():
            if name not in weights or name not in saved or weights[name].shape != saved[name].shape:
                raise CheckpointError(
                    f"the checkpoint of step {checkpoint.step} is of another model: {name} differs",
                    where=str(self._run.dir.checkpoints),
                    fix="start again with --fresh (the old run is kept aside)",
                )
        with torch.no_grad():
            for name, value in weights.items():
                fill(value, saved[name], self._ranks)
        self._updater.clear()
        self._updater.load_state_tensors(checkpoint.tensors["optimizer"], checkpoint.step)
        self._restore_generators(checkpoint.tensors["rng"])

    def _gather(self) -> dict[str, dict[str, Tensor]]:
        """Collect, together, what a checkpoint holds: on rank 0, whole, on the CPU where it was in parts."""
        groups = {"model": self._updater.weights(), "optimizer": self._updater.state_tensors()}
        if self._ranks.size == 1:
            return groups | {"rng": rng_tensors()}
        tensors: dict[str, dict[str, Tensor]] = {name: {} for name in groups}
        for name, group in groups.items():
            for key, value in group.items():
                full = whole(value)
                if self._ranks.leads:
                    tensors[name][key] = full.cpu()
        return tensors | {"rng": self._gather_generators()}

    def _gather_generators(self) -> dict[str, Tensor]:
        """Collect the generators of all processes; those of rank 0 have the names they have when it is alone."""
        own = {name: state.tolist() for name, state in rng_tensors().items()}
        return {
            f"{_prefix(rank)}{name}": torch.tensor(state, dtype=torch.uint8)
            for rank, states in enumerate(self._ranks.gather(own))
            for name, state in states.items()
        }

    def _restore_generators(self, saved: Mapping[str, Tensor]) -> None:
        """Put each process's generators back; one that had none when this was saved begins anew."""
        states = {name: torch.empty(state.shape, dtype=state.dtype) for name, state in saved.items()}
        for name, state in states.items():
            fill(state, saved[name], self._ranks)
        prefix = _prefix(self._ranks.index)
        own = {name.removeprefix(prefix): state for name, state in states.items() if name.startswith(prefix)}
        if own:
            set_rng(own)
        else:
            torch.manual_seed(int(states["cpu"].sum()) + self._ranks.index)


def _prefix(rank: int) -> str:
    return f"rank-{rank}/" if rank else ""


_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.uint8)}


def outline_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Describe a checkpoint as JSON: its state, and the shapes and types of its tensors."""
    tensors = {
        group: {name: [list(value.shape), str(value.dtype)] for name, value in named.items()}
        for group, named in checkpoint.tensors.items()
    }
    return {"step": checkpoint.step, "state": checkpoint.state, "tensors": tensors}


def from_outline(outline: Mapping[str, Any]) -> Checkpoint:
    """Make a checkpoint without its numbers."""
    tensors = {
        group: {
            name: torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
            for name, (shape, dtype) in named.items()
        }
        for group, named in outline["tensors"].items()
    }
    return Checkpoint(outline["step"], tensors, outline["state"])


def _given_up(problem: RlhfError, num_failures: int) -> ResourceError:
    times = f" ({num_failures} times in a row)" if num_failures > 1 else ""
    return ResourceError(
        f"{problem.message}{times}",
        where=problem.where,
        fix="free disk space and run the same command again; it goes on from the last checkpoint",
    )
