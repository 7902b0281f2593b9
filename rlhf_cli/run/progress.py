"""Progress of a loop on stderr: a live bar for a person at a terminal, plain `key=value` lines for a log."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

_LINE_EVERY_SECONDS = 30.0
_NUM_METRICS = 4


class Bar(Protocol):
    """What a loop tells about itself."""

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Move to `step` (steps done so far); without metrics the last ones stay."""


@contextmanager
def open_progress(label: str, total: int, *, start: int = 0, say: Callable[[str], None]) -> Iterator[Bar]:
    """Show a loop of `total` steps, `start` of them done: live on a terminal, else in lines through `say`."""
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with _live_bar(label, total, start) if live else _plain_bar(label, total, start, say) as bar:
        yield bar


@contextmanager
def _live_bar(label: str, total: int, start: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    class LiveBar:
        def __init__(self, progress: Progress, task: TaskID) -> None:
            self._progress, self._task = progress, task

        def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
            self._progress.update(self._task, completed=step)
            if metrics:
                self._progress.update(self._task, metrics=_metric_words(metrics))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
    )
    # redirect_stdout off: stdout carries the result only and may be a pipe beside a terminal stderr.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        yield LiveBar(progress, progress.add_task(label, total=total, completed=start, metrics=""))


@contextmanager
def _plain_bar(label: str, total: int, start: int, say: Callable[[str], None]) -> Iterator[Bar]:
    bar = PlainBar(label, total, start=start, say=say)
    try:
        yield bar
    finally:
        bar.close()


class PlainBar:
    """Says one line at the first step, then at most every 30 s, and one at the end."""

    def __init__(
        self,
        label: str,
        total: int,
        *,
        start: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._start = label, total, start
        self._say, self._clock = say, clock
        self._began = clock()
        self._step, self._metrics = start, ""
        self._said_at: float | None = None
        self._said_step: int | None = None

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        self._step = step
        if metrics:
            self._metrics = _metric_words(metrics)
        if self._said_at is None or self._clock() - self._said_at >= _LINE_EVERY_SECONDS:
            self._write_line()

    def close(self) -> None:
        """Say the last step, if it is not said yet."""
        if self._step not in (self._said_step, self._start):
            self._write_line()

    def _write_line(self) -> None:
        self._said_at, self._said_step = self._clock(), self._step
        words = f"stage={self._label} step={self._step} total={self._total} eta={self._eta()} {self._metrics}"
        self._say(words.rstrip())

    def _eta(self) -> str:
        done = self._step - self._start
        if done <= 0:
            return "?"
        seconds = (self._clock() - self._began) / done * (self._total - self._step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _metric_words(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in list(metrics.items())[:_NUM_METRICS])
