"""`rlhf status`: which runs there are, what they were made from, how far they are, and what they last measured.

Reads manifests and metrics only.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlhf_cli.errors import MissingInputError, RunConflictError
from rlhf_cli.run.claim import is_held
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import Manifest, read_manifest
from rlhf_cli.run.metrics import MetricsLog
from rlhf_cli.tools.text_table import align, number

_DEPTH = 5
_OLD = re.compile(r"\.old-\d+$")
# What says most about a stage, best first; two are shown in a list.
_HEADLINES = {
    "sft": ("eval/loss", "loss"),
    "collect": ("num_votes", "decided", "ties"),
    "train-rm": ("eval/accuracy", "accuracy", "loss"),
    "ppo": ("reward", "kl"),
    "dpo": ("eval/accuracy", "accuracy", "loss"),
}


@dataclass(frozen=True)
class Origin:
    """Something a run was made from.

    state   of the run behind `path`; None where there is no run
    newer   that run ended after this one had started, so this one may not be made from what is there now
    """

    role: str
    path: str
    state: str | None
    newer: bool


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    updated        when its files last changed, in Unix seconds
    took_seconds   over all attempts
    metrics        the newest value of each
    """

    path: str
    stage: str
    state: str
    exit_code: int | None
    steps: int | None
    updated: float
    took_seconds: float
    num_attempts: int
    origins: list[Origin]
    metrics: dict[str, float]
    artifact: str | None
    command: list[str]


def find_runs(paths: Sequence[Path]) -> list[RunStatus]:
    """Read the runs at or under `paths`, each behind what it was made from.

    Raises MissingInputError for a path that is not there. A damaged run among others is told of and left out.
    """
    found: dict[Path, RunStatus] = {}
    for path in paths:
        if not path.exists():
            raise MissingInputError(f"there is no {path}", where=str(path), fix="Correct the path.")
        folders = list(_run_dirs(path, _DEPTH))
        found |= {folder.resolve(): run for folder in folders if (run := _read_or_warn(folder, path))}
    return _parents_first(found)


def _read_or_warn(folder: Path, named: Path) -> RunStatus | None:
    try:
        return read_status(folder)
    except RunConflictError as error:
        if folder == named:
            raise
        sys.stderr.write(f"warning: {error.message}\n")
        return None


def _run_dirs(folder: Path, depth: int) -> Iterator[Path]:
    if RunDir(folder).manifest.is_file():
        yield folder
    elif depth and folder.is_dir():
        for entry in sorted(folder.iterdir()):
            hidden = entry.name.startswith(".") or _OLD.search(entry.name)
            if (
                entry.is_dir()
                and not hidden
                and not entry.is_symlink()
                and os.access(entry, os.R_OK | os.X_OK)
            ):
                yield from _run_dirs(entry, depth - 1)


def read_status(folder: Path) -> RunStatus | None:
    """Read one run; None where `folder` holds none."""
    run_dir = RunDir(folder)
    manifest = read_manifest(run_dir)
    if manifest is None:
        return None
    metrics = newest_metrics(run_dir)
    step = metrics.pop("step", None)
    result = manifest.result
    if result:
        metrics = {name: value for name, value in result.metrics.items() if value is not None}
    return RunStatus(
        path=str(folder),
        stage=manifest.stage,
        state=state_of(run_dir, manifest),
        exit_code=manifest.exit_code,
        steps=result.steps if result else None if step is None else int(step),
        updated=max(file.stat().st_mtime for file in (run_dir.manifest, run_dir.metrics) if file.exists()),
        took_seconds=sum(_seconds(it.started, it.ended) for it in manifest.attempts),
        num_attempts=len(manifest.attempts),
        origins=[_origin(role, path, folder, manifest) for role, path in origins_of(manifest)],
        metrics=metrics,
        artifact=str(folder / result.artifact) if result else None,
        command=manifest.argv,
    )


def state_of(run_dir: RunDir, manifest: Manifest) -> str:
    """Give the status of a run; one that ended without a word is `killed`, whatever its manifest says."""
    return "killed" if manifest.status == "running" and not is_held(run_dir) else manifest.status


def newest_metrics(run_dir: RunDir) -> dict[str, float]:
    """Give the newest value of each metric, and the step of the last line."""
    newest: dict[str, float] = {}
    for row in MetricsLog(run_dir.metrics).read():
        newest |= row
    newest.pop("time", None)
    return newest


def origins_of(manifest: Manifest) -> list[tuple[str, str]]:
    """Name what a run was made from, as (role, path): models it noted, data its configuration names."""
    tree = manifest.config.tree
    data = tree.get("data")
    sections = [tree.get("prompts"), *(data.values() if isinstance(data, dict) else ())]
    sources = [it for section in sections if isinstance(section, list) for it in section]
    paths = [("data", str(it["path"])) for it in sources if isinstance(it, dict) and "path" in it]
    return list(dict.fromkeys([*((it.role, it.path) for it in manifest.parents), *paths]))


def _origin(role: str, path: str, child_dir: Path, child: Manifest) -> Origin:
    run_dir = RunDir(_where_it_ran(child_dir, child) / path)
    try:
        parent = read_manifest(run_dir) if run_dir.manifest.is_file() else None
    except RunConflictError:
        return Origin(role, path, "unreadable", newer=False)
    if parent is None:
        return Origin(role, path, None, newer=False)
    ended = parent.attempts[-1].ended if parent.attempts else None
    started = child.attempts[0].started if child.attempts else None
    newer = ended is not None and started is not None and ended > started
    return Origin(role, os.path.relpath(run_dir.root), state_of(run_dir, parent), newer)


def _where_it_ran(folder: Path, manifest: Manifest) -> Path:
    """Find the folder that the paths of a run's configuration start from: its own, less its run_dir."""
    run_dir = Path(str(manifest.config.tree.get("run_dir", "")))
    root = folder.resolve()
    num_parts = len(run_dir.parts)
    fits = not run_dir.is_absolute() and num_parts and root.parts[-num_parts:] == run_dir.parts
    return Path(*root.parts[:-num_parts]) if fits else Path()


def _seconds(started: str, ended: str | None) -> float:
    end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    return max(0.0, (end - datetime.fromisoformat(started)).total_seconds())


def _parents_first(runs: Mapping[Path, RunStatus]) -> list[RunStatus]:
    """Order runs so that each stands behind what it was made from."""
    ordered: dict[Path, RunStatus] = {}
    waiting: set[Path] = set()

    def place(key: Path) -> None:
        if key in ordered or key in waiting or key not in runs:
            return
        waiting.add(key)
        for origin in runs[key].origins:
            place(Path(origin.path).resolve())
        ordered[key] = runs[key]

    for key in runs:
        place(key)
    return list(ordered.values())


def as_record(runs: Sequence[RunStatus]) -> dict[str, object]:
    """Give the runs as plain data."""
    return {"runs": [asdict(run) for run in runs]}


def list_in_words(runs: Sequence[RunStatus]) -> str:
    """Write a table of runs, one line each."""
    header = ("run", "stage", "state", "step", "ago", "from", "newest")
    rows = [
        (
            run.path,
            run.stage,
            run.state,
            number(run.steps),
            ago(run.updated),
            ", ".join(_short(path) for path in _made_from(run)) or "-",
            _headlines(run),
        )
        for run in runs
    ]
    return align(header, rows)


def _made_from(run: RunStatus) -> list[str]:
    """Name the runs behind a run; where there are none, the models it came from."""
    behind = [it.path for it in run.origins if it.state] or [
        it.path for it in run.origins if it.role == "model"
    ]
    return list(dict.fromkeys(behind))


def _short(path: str) -> str:
    return Path(path).name if Path(path).exists() else path


def _headlines(run: RunStatus) -> str:
    names = [name for name in _HEADLINES.get(run.stage, ()) if name in run.metrics][:2]
    return " ".join(f"{name} {number(run.metrics[name])}" for name in names) or "-"


def details_in_words(run: RunStatus) -> str:
    """Write all that is known of one run."""
    lines = [f"{run.path}: {run.stage}, {_state_in_words(run)}"]
    lines += [f"  {it.role:9} {it.path}{_remark(it)}" for it in run.origins]
    if run.artifact:
        lines.append(f"  {'result':9} {run.artifact}")
    lines.append(f"  {'command':9} {' '.join(run.command)}")
    if run.metrics:
        lines.append("  newest metrics")
        width = max(map(len, run.metrics))
        lines += [f"    {name:{width}}  {number(value)}" for name, value in sorted(run.metrics.items())]
    return "\n".join(lines)


def _state_in_words(run: RunStatus) -> str:
    attempts = "1 attempt" if run.num_attempts == 1 else f"{run.num_attempts} attempts"
    parts = [run.state if not run.exit_code else f"{run.state} with exit code {run.exit_code}"]
    parts.append(f"step {number(run.steps)}")
    parts.append(f"last change {ago(run.updated)} ago")
    parts.append(f"{span(run.took_seconds)} in {attempts}")
    if run.state in ("killed", "preempted", "failed"):
        parts.append("the same command goes on")
    return ", ".join(parts)


def _remark(origin: Origin) -> str:
    if origin.newer:
        return " (made again since: this run may come from an older one)"
    return f" ({origin.state})" if origin.state not in (None, "completed") else ""


def ago(then: float) -> str:
    """Write how long ago a time was, in the largest unit that fits."""
    return span(time.time() - then)


def span(seconds: float) -> str:
    """Write a duration in the largest unit that fits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
