"""`rlhf verify`: is a run, and all it was made from, still what was written?

Reads every byte of checkpoints, results and parents, and hashes them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.errors import CheckpointError, MissingInputError
from rlhf_cli.run.directory import RunDir, digest_path
from rlhf_cli.run.manifest import Manifest, Parent, artifact_path, read_manifest
from rlhf_cli.run.seal import check_seal


@dataclass(frozen=True)
class Finding:
    """What was found about one thing; `problem` is None where it is what was written."""

    path: str
    what: str
    problem: str | None = None


def verify(root: Path) -> list[Finding]:
    """Check the run at `root` and, through its parents, all runs behind it. Raises MissingInputError for no run."""
    return list(_verify_run(root, set()))


def in_words(findings: Sequence[Finding]) -> str:
    """Give one line for each finding, and a last one that sums up."""
    lines = [f"{'BAD' if it.problem else 'ok ':3}  {it.path}  {it.problem or it.what}" for it in findings]
    num_bad = sum(it.problem is not None for it in findings)
    end = "all is what was written"
    if num_bad:
        end = f"{num_bad} of {len(findings)} are not what was written: restore them from a backup, or make them again"
    return "\n".join([*lines, end])


def _verify_run(root: Path, seen: set[Path]) -> Iterator[Finding]:
    if root.resolve() in seen:
        return
    seen.add(root.resolve())
    manifest = read_manifest(RunDir(root))
    if manifest is None:
        raise MissingInputError(f"there is no run in {root}", where=str(root), fix="Name a run directory.")
    yield from _verify_checkpoints(RunDir(root), manifest)
    yield from _verify_result(RunDir(root), manifest)
    for parent in manifest.parents:
        yield _verify_parent(parent)
        if RunDir(Path(parent.path)).manifest.exists():
            yield from _verify_run(Path(parent.path), seen)


def _verify_checkpoints(run_dir: RunDir, manifest: Manifest) -> Iterator[Finding]:
    paths = sorted(run_dir.checkpoints.glob("step-*")) if run_dir.checkpoints.exists() else []
    for path in paths:
        try:
            sealed = check_seal(path)
        except CheckpointError as error:
            yield Finding(str(path), "checkpoint", error.message)
            continue
        named = re.fullmatch(r"step-0*(\d+)", path.name)
        right = named and sealed.get("step") == int(named[1]) and sealed.get("run") == manifest.id
        yield Finding(str(path), "checkpoint", None if right else "belongs to another step or run")
    for path in sorted(run_dir.checkpoints.glob("quarantine/*")):
        yield Finding(str(path), "set aside before: damaged, and not used")


def _verify_result(run_dir: RunDir, manifest: Manifest) -> Iterator[Finding]:
    if manifest.status != "completed" or manifest.result is None:
        yield Finding(str(run_dir.root), f"run, {manifest.status}: has no result to check")
        return
    path = artifact_path(run_dir, manifest)
    if path is None:
        yield Finding(str(run_dir.root / manifest.result.artifact), "result", "is missing")
    elif not manifest.result.digest:
        yield Finding(str(path), "result, written before hashes were kept")
    else:
        same = digest_path(path) == manifest.result.digest
        yield Finding(str(path), "result", None if same else "is not what the run wrote")


def _verify_parent(parent: Parent) -> Finding:
    path, what = Path(parent.path), f"{parent.role}, as it was used"
    if not path.exists():
        on_hub = "@" in parent.digest or not parent.digest
        return Finding(parent.path, f"{parent.role}, not on this disk", None if on_hub else "is missing")
    run_dir = RunDir(path)
    same = parent.digest in map(digest_path, (run_dir.model, run_dir.adapter, path))
    return Finding(parent.path, what, None if same else f"{parent.role}: has changed since it was used")
