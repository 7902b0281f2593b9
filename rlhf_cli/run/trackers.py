"""Metrics for dashboards beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio, by `log.trackers`.

What leaves the machine are the metrics, the stage, the name of the run's folder and those settings that are numbers
or switches. Texts of a configuration stay here: paths and addresses may tell what is nobody's business.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rlhf_cli.errors import UnavailableError
from rlhf_cli.run.chance import draw


@dataclass(frozen=True)
class Tracked:
    """The run as trackers know it: its folder, its stage, a name that stays the same when it goes on."""

    root: Path
    stage: str
    settings: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.root.absolute().name}"

    @property
    def id(self) -> str:
        return f"{draw(0, str(self.root.absolute())):016x}"


class Tracker(Protocol):
    """Takes metrics and shows them somewhere."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step; steps only grow, but for a resumed run, which takes some up again."""

    def close(self) -> None:
        """Hand over what is left."""


@dataclass
class ListTracker:
    """Keeps what it is given; for tests."""

    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: bool = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


@contextmanager
def open_trackers(names: Sequence[str], tracked: Tracked) -> Iterator[list[Tracker]]:
    """Open the trackers named; close them at the end, however it comes.

    Raises UnavailableError where the package of one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"log.trackers names {name}, which is not installed",
                where="log.trackers",
                fix=f"pip install 'rlhf-cli[{name}]', or take it off the list.",
            )
    with redirect_stdout(sys.stderr):  # Trackio greets and parts there
        trackers = [_TRACKERS[name](tracked) for name in names]
    try:
        yield trackers
    finally:
        with redirect_stdout(sys.stderr):
            for tracker in trackers:
                tracker.close()


class _TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, tracked: Tracked) -> None:
        self._folder = tracked.root / "tensorboard"
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an attempt that was killed wrote from this step on is taken back.
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Wandb:
    """A run of Weights & Biases; offline where WANDB_MODE says so or where there is no key."""

    def __init__(self, tracked: Tracked) -> None:
        import wandb

        quiet = wandb.Settings(
            console="off", silent=True, save_code=False, disable_git=True, disable_code=True,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
        )  # fmt: skip
        has_key = "WANDB_API_KEY" in os.environ or Path("~/.netrc").expanduser().exists()
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rlhf"),
            name=tracked.name,
            id=tracked.id,
            resume="allow",
            dir=str(tracked.root),
            mode=mode,
            config=dict(tracked.settings),
            settings=quiet,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A run of Trackio, whose database is a file of this machine; `trackio show` opens it."""

    def __init__(self, tracked: Tracked) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "rlhf"),
            name=f"{tracked.name}-{tracked.id[:6]}",
            resume="allow",
            config=dict(tracked.settings),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS: Mapping[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


def numeric_settings(tree: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """Give the numbers and switches of a configuration under their dotted keys, and nothing else."""
    found: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= numeric_settings(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float):
            found[prefix + key] = value
    return found
