"""Many trials of one kind, and the line that says how they went."""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from rlhf_cli.chaos.corruption import FELL_BACK, corrupt
from rlhf_cli.chaos.poison import KINDS, non_finite, poison
from rlhf_cli.chaos.trials import Calm, Stage, Verdict
from rlhf_cli.chaos.world import World

T = TypeVar("T")

_SHOWN = 8


@dataclass
class Tally:
    """The trials of one campaign."""

    title: str
    num_trials: int = 0
    num_fired: int = 0
    num_unit: int = 0
    unit: str = "faults"
    failures: list[str] = field(default_factory=list)
    most_replayed: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, verdict: Verdict, *, num_unit: int = 1) -> None:
        """Count one trial; `num_unit` is how many faults it held."""
        self.num_trials += 1
        self.num_fired += verdict.fired
        self.num_unit += num_unit if verdict.fired else 0
        self.most_replayed = max(self.most_replayed, verdict.replayed)
        if verdict.faults:
            self.failures.append(f"{verdict.name}: {'; '.join(verdict.faults)}")

    @property
    def passed(self) -> bool:
        """Whether faults were made, all of them, and none broke a promise."""
        return self.num_fired > 0 and not self.failures

    def __str__(self) -> str:
        bound = (
            f"so at most {min(100, 300 / self.num_fired):.2g} % fail, at 95 %" if self.passed else "FAILED"
        )
        words = [
            f"{self.title}: {self.num_trials} trials, {self.num_unit} {self.unit}, {len(self.failures)} failures",
            f"({bound}), {self.most_replayed} steps replayed at most, {self.seconds:.0f} s",
        ]
        lines = [" ".join(words)]
        lines += [f"    {count} x {note}" for note, count in sorted(self.notes.items())]
        lines += [f"    FAILURE {failure}" for failure in self.failures[:_SHOWN]]
        return "\n".join(lines)


def every_operation(stage: Stage, calm: Calm, action: str, *, every: int = 1) -> Tally:
    """Fail each durable operation once (with `every` = 7, each seventh). A fault that does not fire is a failure."""
    tally = Tally(f"{stage.name}: {action} at every operation" + (f", 1 in {every}" if every > 1 else ""))
    for operation in _timed(range(1, len(calm.operations) + 1, every), tally):
        verdict = stage.fail_at(calm, operation, action)
        if not verdict.fired:
            verdict = Verdict(verdict.name, fired=False, faults=("the fault did not fire", *verdict.faults))
        tally.add(verdict)
    return tally


def naive_control(world: World) -> tuple[Tally, Tally]:
    """Kill a run that writes checkpoints the naive way: inside a checkpoint, and right behind one.

    The first must fail, or this harness sees nothing; the second must not, or it was not the kill that failed.
    """
    from rlhf_cli.chaos.naive import use_naive_store

    stage = Stage(world, "train-rm", use_naive_store, sealed=False)
    calm = stage.calm_run()
    inside, behind = (
        Tally(f"control, naive writer: kill {where} a checkpoint") for where in ("in", "behind")
    )
    writes = [i for i, line in enumerate(calm.operations, 1) if " checkpoint." in line]
    ends = [i + 1 for i in writes if i + 1 not in writes]
    for tally, operations in ((inside, writes), (behind, ends)):
        for operation in _timed(operations, tally):
            tally.add(stage.fail_at(calm, operation, "kill"))
    return inside, behind


def random_kills(stage: Stage, calm: Calm, num_kills: int, chance: random.Random) -> Tally:
    """Kill runs at random moments until `num_kills` hit."""
    tally = Tally(f"{stage.name}: random SIGKILL", unit="kills")
    for _ in _timed(iter(lambda: tally.num_unit >= num_kills, True), tally):
        verdict, hits = stage.kill_at_random(calm, chance)
        tally.add(verdict, num_unit=hits)
    return tally


def random_terms(stage: Stage, calm: Calm, num_terms: int, chance: random.Random) -> Tally:
    """Send SIGTERM at random moments until `num_terms` met a run with work left."""
    tally = Tally(f"{stage.name}: random SIGTERM", unit="signals")
    for _ in _timed(iter(lambda: tally.num_fired >= num_terms, True), tally):
        verdict, code = stage.terminate(calm, chance)
        tally.add(verdict)
        tally.notes[f"exit {code}" + ("" if verdict.fired else ", too late to count")] += 1
    return tally


def corruptions(world: World, calm: Calm, num_trials: int, chance: random.Random) -> Tally:
    """Damage the newest of two checkpoints; the store must find out and fall back."""
    tally = Tally(f"{calm.stage}: corrupted checkpoints", unit="corruptions")
    began = time.monotonic()
    scratch = world.folder / "corrupted" / "checkpoints"
    counts = corrupt(world.folder / f"{calm.stage}-calm", scratch, num_trials, chance)
    for kind, count in counts.items():
        faults = () if kind.endswith(FELL_BACK) else (kind,)
        for _ in range(count):
            tally.add(Verdict(kind, fired=True, faults=faults))
    tally.notes.update(counts)
    tally.seconds = time.monotonic() - began
    return tally


def poisonings(stage: Stage) -> Tally:
    """Put a NaN into each of 12 steps once, and into all from one of the first 6 on, and see where it ends.

    It must never be published. Where it stays, the run goes back once and then ends with 76; a single one may end it.
    """
    tally = Tally(f"{stage.name}: NaN in loss, gradient or weight", unit="NaNs")
    cases = [
        (kind, at, at <= 6 and stays) for kind in KINDS for at in range(1, 13) for stays in (False, True)
    ]
    length = "ppo.iterations=6" if stage.name == "ppo" else "train.max_steps=12"
    for kind, at, stays in _timed(dict.fromkeys(cases), tally):
        poisoned = Stage(stage.world, stage.name, poison(stage.name, kind, at, stays=stays))
        code, run_dir, last = poisoned.run_once(f"nan-{kind}-{at}", "--set", length)
        faults = [f"published {name}" for name in non_finite(run_dir)]
        if code not in ((76,) if stays else (0, 76)):
            faults.append(f"exit {code}: {last}")
        tally.notes[f"{kind} {'from a step on' if stays else 'once'}: exit {code}"] += 1
        tally.add(Verdict(f"{kind} at {at}", fired=True, faults=tuple(faults)))
    return tally


def _timed(items: Iterable[T], tally: Tally) -> Iterator[T]:
    began = time.monotonic()
    for item in items:
        yield item
        tally.seconds = time.monotonic() - began
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{tally.title}: {tally.num_trials} trials, {len(tally.failures)} failures ")
