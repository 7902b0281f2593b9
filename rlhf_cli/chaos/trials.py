"""One trial: strike a run, look at what is left, run the same command again, and compare with a calm run."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.chaos.evidence import broken, differences, gather, published
from rlhf_cli.chaos.forks import Child, Ended
from rlhf_cli.chaos.world import CHECKPOINT_EVERY, World
from rlhf_cli.errors import RlhfError
from rlhf_cli.run.directory import RunDir, read_json_lines

# A step or a vote is done where one of these is announced.
_WORK = (" append.write metrics.jsonl ", " database.commit collect.db ")
DOCUMENTED = {0, 2, 65, 66, 69, 71, 73, 75, 76, 78, 130}


@dataclass(frozen=True)
class Calm:
    """The undisturbed run of a stage: what it left, its durable operations, how long it and its process took."""

    stage: str
    evidence: Mapping[str, str]
    operations: Sequence[str]
    run_seconds: float
    seconds: float

    def has_work_left(self, num_operations: int) -> bool:
        """Say whether a run that did that many operations has a step or vote to go behind the one it is at."""
        ahead = self.operations[num_operations:]
        return sum(any(name in line for name in _WORK) for line in ahead) > 1


@dataclass(frozen=True)
class Verdict:
    """What became of one trial. `fired`: the fault happened. `faults`: each promise that was broken."""

    name: str
    fired: bool
    faults: tuple[str, ...]
    replayed: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage in its world.

    prepare     what is done in each of its processes before it starts
    sealed      its published checkpoints have a manifest to be held to
    """

    world: World
    name: str
    prepare: Callable[[], None] | None = None
    sealed: bool = True

    def calm_run(self) -> Calm:
        """Run once undisturbed, recording every durable operation."""
        run_dir, record = self._place("calm")
        ended = self._run(run_dir, {"RLHF_FAULT_RECORD": str(record)})
        if ended.code != 0:
            raise RlhfError(f"{self.name} does not run even undisturbed: exit {ended.code}: {ended.said}")
        operations = record.read_text().splitlines()
        times = [float(str(row["time"])) for row in read_json_lines(RunDir(run_dir).events)]
        return Calm(self.name, gather(run_dir), operations, times[-1] - times[0], ended.seconds)

    def fail_at(self, calm: Calm, operation: int, action: str) -> Verdict:
        """Fail one durable operation, counted from 1: kill the process ahead of it, or have the disk refuse it."""
        run_dir, record = self._place(f"op{operation}-{action}")
        rule = {"RLHF_FAULT": f"*:{operation}={action}", "RLHF_FAULT_RECORD": str(record)}
        ended = self._run(run_dir, rule)
        passed = record.read_text().splitlines() if record.exists() else []
        fired = any(line.endswith(f" {action}") for line in passed)
        faults = [] if action == "kill" else _impolite(ended)
        name = f"{action} at {' '.join(calm.operations[operation - 1].split()[:3])}"
        return self._verdict(name, run_dir, calm, fired=fired, faults=faults)

    def kill_at_random(
        self, calm: Calm, chance: random.Random, *, most_kills: int = 3
    ) -> tuple[Verdict, int]:
        """Kill a run up to `most_kills` times at moments drawn over its whole length; give the number that hit."""
        run_dir, _ = self._place("random")
        num_kills, faults = 0, list[str]()
        for _ in range(chance.randint(1, most_kills)):
            child = self._start(run_dir)
            hit = child.strike(signal.SIGKILL, chance.uniform(0, calm.seconds))
            child.wait()
            num_kills += hit
            if not hit:
                break
            faults += self._corrupt(run_dir)
        verdict = self._verdict(f"{num_kills} kills", run_dir, calm, fired=num_kills > 0, faults=faults)
        return verdict, num_kills

    def terminate(self, calm: Calm, chance: random.Random) -> tuple[Verdict, int | None]:
        """Send SIGTERM at a random moment once the run has begun; give the exit code as well.

        It must be 75 where work was left. A run that was done, or at its last piece of work, may end with 0 as
        well; this is not `fired`.
        """
        run_dir, record = self._place("term")
        child = self._start(run_dir, {"RLHF_FAULT_RECORD": str(record)})
        while child.is_running() and not _has_begun(run_dir):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, calm.run_seconds))
        must_stop = False
        if child.pause():
            must_stop = calm.has_work_left(len(record.read_text().splitlines()))
            child.send(signal.SIGTERM, signal.SIGCONT)
        ended = child.wait()
        faults = []
        if ended.code != 75 and (must_stop or ended.code != 0):
            faults.append(f"exit {ended.code} after SIGTERM: {ended.last_line}")
        verdict = self._verdict("SIGTERM", run_dir, calm, fired=must_stop, faults=faults)
        if ended.code == 75 and verdict.replayed:
            lost = (f"{verdict.replayed} steps done and lost in spite of exit 75",)
            verdict = Verdict(verdict.name, must_stop, verdict.faults + lost, verdict.replayed)
        return verdict, ended.code

    def run_once(self, name: str, *options: str) -> tuple[int | None, Path, str]:
        """Run to its end; give the exit code, the run directory, and the last line said."""
        run_dir, _ = self._place(name)
        command = [*self.world.command(self.name, run_dir), *options]
        ended = self.world.forks.run(command, prepare=self.prepare)
        return ended.code, run_dir, ended.last_line

    def _verdict(self, name: str, run_dir: Path, calm: Calm, *, fired: bool, faults: list[str]) -> Verdict:
        """Look at what is left, run the same command again, and compare."""
        faults += self._corrupt(run_dir)
        last_step = _last_step(run_dir)
        again = self._run(run_dir)
        replayed = 0
        if again.code != 0:
            faults.append(f"cannot be resumed: exit {again.code}: {again.last_line}")
        else:
            faults += [f"differs: {name}" for name in differences(calm.evidence, gather(run_dir))]
            was_complete = "already complete" in again.said
            replayed = 0 if was_complete else last_step - _resumed_step(run_dir)
            if replayed > CHECKPOINT_EVERY:
                faults.append(f"{replayed} steps done twice, the last checkpoint is {CHECKPOINT_EVERY} away")
            # What the disk refused to delete at the end of a run, no later process comes to sweep.
            swept = ".tmp-*" if was_complete else ".*"
            leftovers = [path.name for path in RunDir(run_dir).checkpoints.glob(swept)]
            faults += [f"left behind: {name}" for name in leftovers]
        if not faults:
            shutil.rmtree(run_dir)
        return Verdict(name, fired, tuple(faults), replayed)

    def _corrupt(self, run_dir: Path) -> list[str]:
        return [f"corrupt: {name}" for name in broken(published(run_dir))] if self.sealed else []

    def _place(self, name: str) -> tuple[Path, Path]:
        """Name a run directory and a file beside it; what an earlier trial left there goes."""
        run_dir = self.world.folder / f"{self.name}-{name}"
        record = run_dir.with_suffix(".ops")
        shutil.rmtree(run_dir, ignore_errors=True)
        record.unlink(missing_ok=True)
        return run_dir, record

    def _start(self, run_dir: Path, env: Mapping[str, str] | None = None) -> Child:
        command = self.world.command(self.name, run_dir)
        return self.world.forks.start(command, env=env, prepare=self.prepare)

    def _run(self, run_dir: Path, env: Mapping[str, str] | None = None) -> Ended:
        return self._start(run_dir, env).wait()


def _impolite(ended: Ended) -> list[str]:
    """List what a run that met a broken disk should not have done."""
    faults = []
    if ended.code not in DOCUMENTED:
        faults.append(f"exit {ended.code}: {ended.last_line}")
    if "Traceback" in ended.said:
        faults.append("a traceback on stderr")
    return faults


def _has_begun(run_dir: Path) -> bool:
    return any(row.get("kind") == "started" for row in read_json_lines(RunDir(run_dir).events))


def _last_step(run_dir: Path) -> int:
    """Give the newest step that metrics.jsonl tells of; 0 where there is none."""
    steps = [row["step"] for row in read_json_lines(RunDir(run_dir).metrics)]
    return max((step for step in steps if isinstance(step, int)), default=0)


def _resumed_step(run_dir: Path) -> int:
    """Give the step that the last attempt went on from."""
    manifest = json.loads(RunDir(run_dir).manifest.read_text())
    return int(manifest["attempts"][-1]["resumed_from_step"] or 0)
