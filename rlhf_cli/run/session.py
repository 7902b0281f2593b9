"""The life of a run: claim its directory, say and record what happens in it, and write down how it ended."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from rlhf_cli.errors import Preempted, RlhfError, RunConflictError
from rlhf_cli.redaction import redact
from rlhf_cli.run.claim import RunSpec, Tree, claim_directory
from rlhf_cli.run.directory import RunDir, append_json_line, digest_path, read_json_lines, sweep, write_atomic
from rlhf_cli.run.doctor.diagnose import Doctor
from rlhf_cli.run.failures import EXIT_BUG, exit_code_of, known_failure, save_crash
from rlhf_cli.run.faults import fault_point
from rlhf_cli.run.manifest import (
    ConfigRecord,
    Drift,
    Manifest,
    Parent,
    Result,
    Status,
    begin_attempt,
    git_revision,
    installed_versions,
    utc_now,
)
from rlhf_cli.run.metrics import MetricsLog, json_numbers
from rlhf_cli.run.progress import Bar, open_progress
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.run.report.page import write_report
from rlhf_cli.run.signals import StopFlag, Stopped
from rlhf_cli.run.trackers import Tracked, Tracker, numeric_settings, open_trackers


@dataclass(frozen=True)
class StageResult:
    """What a stage hands back: the path of its artifact, optimizer steps (or pairs) done, final metrics."""

    artifact: Path
    steps: int
    metrics: Mapping[str, float]


class Run:
    """What a stage may do with its run; made by `open_run`."""

    def __init__(
        self,
        run_dir: RunDir,
        manifest: Manifest,
        stop: StopFlag,
        allowed_drift: Sequence[str] = (),
        ranks: Ranks | None = None,
    ) -> None:
        self.dir = run_dir
        self.ranks = ranks or Ranks(stop=stop)
        self.stage = manifest.stage
        self.argv = tuple(manifest.argv)
        self.metrics = MetricsLog(run_dir.metrics)
        self.stop = stop
        self.crash_file: Path | None = None
        self._doctor = Doctor(manifest.stage)
        self.manifest = manifest
        self._allowed_drift = allowed_drift
        self.trackers: list[Tracker] = []

    def say(self, text: str) -> None:
        """Write to stderr, above the progress bar, and to log.txt with the time, as far as they take it."""
        text = redact(text)
        if self.ranks.leads:
            with suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
        with suppress(OSError):  # what fills the disk is told where it matters: at checkpoints
            fault_point("log.write", self.dir.log)
            with self.dir.log.open("a", encoding="utf-8") as log:
                log.write(f"{utc_now()} {text}\n")

    def event(self, kind: str, **fields: object) -> None:
        """Append what happened to events.jsonl, if the disk takes it; `fields` must be JSON-able."""
        with suppress(OSError):
            append_json_line(self.dir.events, {"time": round(time.time(), 3), "kind": kind, **fields})

    def note_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append the line of `step` to metrics.jsonl; say and record what it shows to be wrong, each fault once."""
        self.metrics.append(step, values)
        for tracker in self.trackers:
            with suppress(OSError):
                tracker.log(step, values)
        for finding in self._doctor.look(values):
            self.event("doctor", step=step, **asdict(finding))
            self.say(f"doctor: {finding.text}")

    def add_parent(self, role: str, path: Path | str, digest: str) -> None:
        """Record what the run is made from. Raises RunConflictError where it has become something else since."""
        self.identify({f"{role} {path}": digest})
        others = [old for old in self.manifest.parents if (old.role, old.path) != (role, str(path))]
        self.manifest.parents = [*others, Parent(role=role, path=str(path), digest=digest)]
        self._save()

    def identify(self, facts: Mapping[str, str]) -> None:
        """Hold what decides the result of a run against what its checkpoints come from, together, and record it.

        Raises RunConflictError with the names that differ, unless --allow-drift names them: then the change is noted.
        """
        known = self.manifest.identity if any(self.dir.checkpoints.glob("step-*")) else {}
        changed = [name for name, fact in facts.items() if known.get(name, fact) != fact]
        refused = [name for name in changed if not {name, name.partition(" ")[0]} & {*self._allowed_drift}]
        options = " ".join(f"--allow-drift {name.partition(' ')[0]}" for name in refused)
        conflict = RunConflictError(
            f"not what this run has been trained with so far: {', '.join(refused)}",
            where=str(self.dir.root),
            fix=f"restore it, start anew with --fresh, or go on with the change: {options}",
        )
        self.ranks.agree(conflict if refused else None)
        for name in changed:
            self.note_drift(f"{name}: {known[name][:12]} -> {facts[name][:12]}")
        self.manifest.identity |= facts
        self._save()

    def note_drift(self, change: str) -> None:
        """Record a change between attempts that was asked for: the run is no longer that of one configuration."""
        self.manifest.drifts.append(Drift(change=change, accepted=utc_now()))
        self.event("drift", change=change)
        self.say(f"warning: goes on in spite of a change: {change}")

    def note_world_size(self) -> None:
        """Record how many processes there are; another number changes the last bits of sums, and dropout."""
        size = str(self.ranks.size)
        known = self.manifest.identity.get("world_size", size)
        if known != size and any(self.dir.checkpoints.glob("step-*")):
            self.note_drift(f"processes: {known} -> {size}")
        self.manifest.identity |= {"world_size": size}
        self._save()

    def set_extra(self, key: str, value: object) -> None:
        """Record something of this stage's own that later stages read, such as reward statistics."""
        self.manifest.extra[key] = value
        self._save()

    def progress(self, total: int, *, start: int = 0) -> AbstractContextManager[Bar]:
        """Show a loop of `total` steps of which `start` are done."""
        return open_progress(self.stage, total, start=start, say=self.say, may_draw=self.ranks.leads)

    def resumed(self, step: int) -> None:
        """Record that this attempt goes on from the checkpoint at `step`, with the metrics up to it."""
        told = (event.get("rule") for event in read_json_lines(self.dir.events) if event["kind"] == "doctor")
        self._doctor.remember(self.metrics.read(), map(str, told))
        self.manifest.attempts[-1].resumed_from_step = step
        self._save()
        self.event("resumed", step=step)
        self.say(f"resumed from step {step}")

    def checkpointed(self, step: int) -> None:
        """Record that the checkpoint at `step` is safe on disk."""
        self.manifest.last_checkpoint_step = step
        self._save()
        self.event("checkpointed", step=step)

    def finish(self, result: StageResult) -> None:
        """Note the result; the run counts as completed once `open_run` ends without an exception."""
        if not self.ranks.leads:
            return
        inside = result.artifact.is_relative_to(self.dir.root)
        artifact = result.artifact.relative_to(self.dir.root) if inside else result.artifact.absolute()
        metrics = json_numbers(result.metrics)
        digest = digest_path(result.artifact)
        self.manifest.result = Result(
            artifact=str(artifact), digest=digest, steps=result.steps, metrics=metrics
        )

    def record_end(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Write the outcome into the manifest, and the traceback of what is no RlhfError into a file."""
        with self.stop.deferred():
            self._record_end(error)

    def _record_end(self, error: BaseException | None) -> None:
        status, exit_code = self._outcome(error)
        if status != "completed":
            self.manifest.result = None
        self.manifest.close_attempt(status, exit_code)
        try:
            self._save()
        except OSError as problem:
            if error is None:
                raise
            self.say(f"warning: the manifest does not say how the run ended: {problem}")
        self.event("ended", status=status, exit_code=exit_code)
        if error is not None and not isinstance(error, RlhfError | Stopped | KeyboardInterrupt):
            self.crash_file = save_crash(self.dir.root, error)
        try:
            write_report(self.dir.root)
        except OSError as problem:
            self.say(f"warning: no report.html: {problem}")

    def _outcome(self, error: BaseException | None) -> tuple[Status, int]:
        if error is not None:
            preempted = isinstance(known_failure(error), Preempted)
            return ("preempted" if preempted else "failed"), exit_code_of(error)
        return ("completed", 0) if self.manifest.result else ("failed", EXIT_BUG)

    def _save(self) -> None:
        self.manifest.write(self.dir)


@contextmanager
def open_run(
    spec: RunSpec,
    *,
    fresh: bool = False,
    stop: StopFlag | None = None,
    ranks: Ranks | None = None,
    differing_keys: Callable[[Tree, Tree], list[str]] = lambda old, new: [],
) -> Iterator[Run]:
    """Claim `spec.root`, start or continue the run in it, and record how the block ends.

    Raises RunConflictError where the directory is in use, or holds something else or another configuration,
    which `differing_keys(old_tree, new_tree)` spells out. `fresh` renames an old run to <name>.old-N. Signals set
    `stop` if that listens already, else a flag of the run's own.
    """
    with ExitStack() as stack:
        old = stack.enter_context(claim_directory(spec, fresh=fresh, differing_keys=differing_keys))
        run_dir = RunDir(spec.root)
        for folder in (spec.root, run_dir.data_report.parent, spec.root / "cache", spec.root / "export"):
            sweep(folder)
        changes = (
            differing_keys(old.config.tree, spec.tree) if old and old.config.digest != spec.digest else []
        )
        others = _other_versions(old) if old else []
        manifest = _begin(spec, old)
        manifest.write(run_dir)
        write_atomic(run_dir.config, redact(spec.source_text))
        write_atomic(run_dir.resolved, redact(spec.resolved_text))
        listening = stop or stack.enter_context(StopFlag().installed())
        run = Run(run_dir, manifest, listening, spec.allowed_drift, ranks)
        stack.push(run.record_end)
        run.event("started", argv=list(spec.argv))
        for change in changes:
            run.note_drift(change)
        run.note_world_size()
        if others:
            run.say(
                f"note: the last bits of a resumed run may differ, with other versions: {', '.join(others)}"
            )
        tracked = Tracked(spec.root, spec.stage, numeric_settings(spec.tree))
        run.trackers = stack.enter_context(open_trackers(_trackers_named(spec.tree), tracked))
        yield run


@contextmanager
def follow_run(spec: RunSpec, ranks: Ranks, stop: StopFlag) -> Iterator[Run]:
    """Take part in the run that rank 0 has opened: what is written on the way goes to ranks/N inside of it.

    Prepared data is read from where rank 0 keeps it.
    """
    leader = RunDir(spec.root)
    run_dir = RunDir(spec.root / "ranks" / str(ranks.index), shared_cache=leader.cache)
    shutil.rmtree(run_dir.root, ignore_errors=True)  # of an attempt before
    run_dir.root.mkdir(parents=True)
    run = Run(run_dir, _begin(spec, None), stop, ranks=ranks)
    try:
        yield run
    except BaseException as error:
        if not isinstance(error, RlhfError | Stopped | KeyboardInterrupt | SystemExit):
            run.crash_file = save_crash(run_dir.root, error)
        raise


def _trackers_named(tree: Tree) -> list[str]:
    section = tree.get("log")
    names = section.get("trackers") if isinstance(section, dict) else None
    return [str(name) for name in names or ()]


def _other_versions(old: Manifest) -> list[str]:
    """List what is installed in another version than in the attempt before."""
    now = installed_versions()
    changed = sorted(name for name, version in now.items() if old.versions.get(name, version) != version)
    return [f"{name} {old.versions[name]} -> {now[name]}" for name in changed]


def _begin(spec: RunSpec, old: Manifest | None) -> Manifest:
    config = ConfigRecord(digest=spec.digest, tree=spec.tree)
    manifest = old or Manifest(stage=spec.stage, config=config)
    if manifest.attempts and manifest.attempts[-1].status == "running":
        manifest.attempts[-1].status = "killed"
    manifest.status, manifest.exit_code, manifest.result = "running", None, None
    manifest.argv, manifest.config = list(spec.argv), config
    seed = spec.tree.get("seed")
    manifest.seed = seed if isinstance(seed, int) else None
    manifest.versions, manifest.git = installed_versions(), git_revision()
    manifest.attempts.append(begin_attempt())
    return manifest
