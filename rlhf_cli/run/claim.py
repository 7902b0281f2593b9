"""Decide whether a directory may be used for a run, and hold it against other processes."""

import fcntl
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.errors import RunConflictError
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.failures import known_failure
from rlhf_cli.run.faults import fault_point
from rlhf_cli.run.manifest import Manifest, artifact_path, read_manifest, utc_now

Tree = dict[str, object]
_OTHER_DIR = "choose another run_dir"


@dataclass(frozen=True)
class RunSpec:
    """What is known of a run before it starts; equal `digest` means the same configuration.

    `allowed_drift` names what may differ from earlier attempts: configuration keys, or names of `Run.identify`.
    """

    stage: str
    root: Path
    digest: str
    tree: Tree
    source_text: str = ""
    resolved_text: str = ""
    argv: Sequence[str] = ()
    allowed_drift: Sequence[str] = ()


def find_completed(spec: RunSpec) -> Manifest | None:
    """Return the record of this very run if it is completed and its artifact still there. Only reads."""
    run_dir = RunDir(spec.root)
    manifest = read_manifest(run_dir)
    same = manifest is not None and (manifest.stage, manifest.config.digest) == (spec.stage, spec.digest)
    return manifest if manifest and same and artifact_path(run_dir, manifest) else None


@contextmanager
def claim_directory(
    spec: RunSpec, *, fresh: bool, differing_keys: Callable[[Tree, Tree], list[str]]
) -> Iterator[Manifest | None]:
    """Hold the lock of `spec.root` inside the block; yield the record of the run to continue, if any.

    `fresh` first renames an old run, never another kind of directory, to <name>.old-N.
    Raises RunConflictError where the directory cannot be used.
    """
    run_dir = RunDir(spec.root)
    _refuse_foreign(run_dir)
    if fresh and spec.root.exists():
        with _locked(run_dir), _as_conflict(spec.root):
            fault_point("run.set_aside", spec.root)
            spec.root.rename(_free_name(spec.root))
    with _as_conflict(spec.root):
        spec.root.mkdir(parents=True, exist_ok=True)
    with _locked(run_dir):
        old = read_manifest(run_dir)
        if old:
            _refuse_other_run(old, spec, differing_keys)
        yield old


def _refuse_foreign(run_dir: RunDir) -> None:
    """Refuse a file, and a directory with content that no run has put there."""
    root = run_dir.root
    if root.exists() and not root.is_dir():
        raise RunConflictError("run_dir is a file", where=str(root), fix=f"{_OTHER_DIR.capitalize()}.")
    if not root.exists() or run_dir.manifest.exists():
        return
    # A run that dies before its first manifest leaves these.
    own = (".lock", f".{run_dir.manifest.name}.tmp-")
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(own))
    if names:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise RunConflictError(
            f"run_dir is not empty and not a run: it holds {listed}",
            where=str(root),
            fix=f"{_OTHER_DIR.capitalize()}, or move these files away.",
        )


def _refuse_other_run(
    old: Manifest, spec: RunSpec, differing_keys: Callable[[Tree, Tree], list[str]]
) -> None:
    ways_out = f"{_OTHER_DIR.capitalize()}, or add --fresh to rename the old run aside and start anew."
    if old.stage != spec.stage:
        raise RunConflictError(
            f"run_dir holds a run of `{old.stage}`, not of `{spec.stage}`", where=str(spec.root), fix=ways_out
        )
    if old.config.digest != spec.digest:
        keys = differing_keys(old.config.tree, spec.tree)
        refused = [key for key in keys if key.partition(":")[0] not in spec.allowed_drift]
        if keys and not refused:
            return
        listed = "".join(f"\n    {key}" for key in refused)
        raise RunConflictError(
            f"run_dir holds a {old.status} run with another configuration (old -> new):{listed}",
            where=str(spec.root),
            fix=f"Restore the old values to continue it, or accept a change with --allow-drift KEY,"
            f" {ways_out[0].lower()}{ways_out[1:]}",
        )


def _free_name(root: Path) -> Path:
    number = 1
    while (candidate := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    return candidate


def is_held(run_dir: RunDir) -> bool:
    """Say whether a process is at work in a run. Only reads; where locks do not work, nobody can tell: yes."""
    try:
        with run_dir.lock.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def _locked(run_dir: RunDir) -> Iterator[None]:
    """Hold an exclusive flock, which the system drops with the process however it ends."""
    with _as_conflict(run_dir.root):
        file = run_dir.lock.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunConflictError(
                f"run_dir is in use by {file.read().strip() or 'another process'}",
                where=str(run_dir.root),
                fix=f"Wait for it, stop it, or {_OTHER_DIR}.",
            ) from error
        except OSError as error:  # some network file systems have no flock
            sys.stderr.write(
                f"warning: {run_dir.root} cannot be locked ({error.strerror}): start one run only\n"
            )
        fault_point("lock.write", run_dir.lock)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {platform.node()} since {utc_now()}\n")
        file.flush()
        yield


@contextmanager
def _as_conflict(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if known_failure(error):
            raise
        raise RunConflictError(
            f"run_dir cannot be written: {error.strerror}", where=str(root), fix=f"{_OTHER_DIR.capitalize()}."
        ) from error
