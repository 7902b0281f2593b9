"""Checkpoints that are whole or absent: safetensors and JSON, hashed, published by one rename.

    checkpoints/step-000100/{model,optimizer,rng}.safetensors  state.json  MANIFEST.json

MANIFEST.json is written last and seals every other file (`run.seal`); it names the run, too. Loading verifies from
the newest to the oldest; what fails moves to checkpoints/quarantine/ and the next one is tried. Never a silent fresh
start.
"""

import errno
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_cli.errors import CheckpointError, ResourceError
from rlhf_cli.run.directory import fsync_path, publish_dir
from rlhf_cli.run.faults import fault_point
from rlhf_cli.run.seal import check_seal, seal

_NAME = re.compile(r"step-(\d{6,})")
_FORMAT = "rlhf.checkpoint/2"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One verified checkpoint: named groups of tensors, and a JSON state."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, object]


class CheckpointStore:
    """The checkpoints of the run `run_id`; keeps the newest `keep`."""

    def __init__(self, root: Path, run_id: str, *, keep: int, warn: Callable[[str], None]) -> None:
        self.root = root
        self._run_id = run_id
        self._keep = keep
        self._warn = warn
        if not root.exists():
            root.mkdir(parents=True)
            fsync_path(root.parent)
        for leftover in (*root.glob(".tmp-*"), *root.glob(".del-*"), *root.glob(".step-*.del-*")):
            shutil.rmtree(leftover)  # of a writer that was killed: the run's lock says no other is alive

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, object]
    ) -> Path:
        """Write and publish a checkpoint, then prune old ones. Raises ResourceError when the disk refuses."""
        final = self.root / f"step-{step:06d}"
        if final.exists():  # verified at load, or written by this process: a step is never computed two ways
            return final
        temporary = self.root / f".tmp-{final.name}"
        try:
            self._require_room(tensors)
            self._write(temporary, step, tensors, state)
            publish_dir(temporary, final)
        except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says
            shutil.rmtree(temporary, ignore_errors=True)
            raise ResourceError(
                f"the checkpoint of step {step} could not be written: {error}",
                where=str(final),
                fix="free disk space and run the same command again; earlier checkpoints are untouched",
            ) from error
        self._prune()
        return final

    def _write(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, object],
    ) -> None:
        fault_point("checkpoint.mkdir", folder)
        folder.mkdir()
        for name, group in tensors.items():
            on_cpu = {key: value.detach().cpu().contiguous() for key, value in group.items()}
            fault_point("checkpoint.write", folder / f"{name}.safetensors")
            save_file(on_cpu, folder / f"{name}.safetensors")
        fault_point("checkpoint.write", folder / "state.json")
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        seal(folder, {"format": _FORMAT, "run": self._run_id, "step": step})

    def _require_room(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Refuse before anything is written: a full disk also stops the logs, and other programs."""
        wanted = size_in_bytes(tensors)
        free = shutil.disk_usage(self.root).free
        if free < wanted:
            raise OSError(errno.ENOSPC, f"{wanted:,} bytes are needed, {free:,} are free", str(self.root))

    def _prune(self) -> None:
        try:
            for path in self._newest_first()[self._keep :]:
                doomed = path.with_name(f".del-{path.name}")
                fault_point("checkpoint.retire", path)
                path.rename(doomed)  # half-deleted trees must never look like checkpoints
                fault_point("checkpoint.delete", doomed)
                shutil.rmtree(doomed)
        except OSError as error:  # what is left is swept by the next process
            self._warn(f"warning: an old checkpoint could not be deleted: {error}")

    def load_latest(self) -> Checkpoint | None:
        """Load the newest checkpoint that verifies; None when there never was one.

        Raises CheckpointError when there are checkpoints and none verifies.
        """
        found = self._newest_first()
        for path in found:
            try:
                return _read(path, self._run_id)
            except CheckpointError as error:
                self._quarantine(path, error.message)
        if found or (self.root / "quarantine").exists():
            raise CheckpointError(
                "no checkpoint of this run verifies",
                where=str(self.root),
                fix="start again with --fresh (the old run is kept aside), or restore a checkpoint from a backup",
            )
        return None

    def _quarantine(self, path: Path, reason: str) -> None:
        folder = self.root / "quarantine"
        folder.mkdir(exist_ok=True)
        target = folder / path.name
        shutil.rmtree(target, ignore_errors=True)
        fault_point("checkpoint.quarantine", path)
        path.rename(target)
        self._warn(f"checkpoint {path.name} does not verify ({reason}); moved to {target}")

    def _newest_first(self) -> list[Path]:
        named = [(match, path) for path in self.root.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for match, path in sorted(named, key=lambda pair: -int(pair[0][1]))]


def size_in_bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Count the bytes that groups of tensors take on disk."""
    return sum(value.nbytes for group in tensors.values() for value in group.values())


def _read(path: Path, run_id: str) -> Checkpoint:
    """Verify a checkpoint file by file and load it."""
    manifest = check_seal(path)
    try:
        if manifest["format"] != _FORMAT or f"step-{manifest['step']:06d}" != path.name:
            raise CheckpointError("its manifest belongs to another checkpoint", where=str(path))
        if manifest["run"] != run_id:
            raise CheckpointError("it belongs to another run", where=str(path))
        tensors = {
            name.removesuffix(".safetensors"): load_file(path / name)
            for name in manifest["files"]
            if name.endswith(".safetensors")
        }
        state = json.loads((path / "state.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"unreadable: {error}", where=str(path)) from error
    return Checkpoint(manifest["step"], tensors, state)
