"""Progress of a loop on stderr: a live view for a person at a terminal, plain `key=value` lines for a log."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rlhf_cli.run.pace import Pace, Recent, duration
from rlhf_cli.run.usage import memory_words

_LINE_EVERY_SECONDS = 30.0


class Bar(Protocol):
    """What a loop tells about itself."""

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Move to `step` (steps done so far); without metrics the last ones stay."""


@contextmanager
def open_progress(
    label: str, total: int, *, start: int = 0, say: Callable[[str], None], may_draw: bool = True
) -> Iterator[Bar]:
    """Show a loop of `total` steps, `start` of them done: live on a terminal, else in lines through `say`."""
    live = may_draw and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with _live_view(label, total, start) if live else _plain_bar(label, total, start, say) as bar:
        yield bar


@contextmanager
def _live_view(label: str, total: int, start: int) -> Iterator[Bar]:
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class LiveView(Progress):
        """A bar, and below it the metrics that matter, cut to the width of the terminal."""

        recent = Recent(label)
        pace = Pace(start)

        def update_step(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
            if metrics:
                self.recent.note(metrics)
                self.pace.note(step, metrics)
            super().update(task, completed=step)

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            words = filter(
                None, (self.recent.sparkline(), self.recent.words(), self.pace.words(), memory_words())
            )
            yield Text("  " + "  ".join(words), no_wrap=True, overflow="ellipsis", style="dim")

    class LiveBar:
        def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
            view.update_step(step, metrics)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    # redirect_stdout off: stdout carries the result only and may be a pipe beside a terminal stderr.
    with LiveView(*columns, console=Console(stderr=True), redirect_stdout=False) as view:
        task = view.add_task(label, total=total, completed=start)
        yield LiveBar()


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
        memory: Callable[[], str] = memory_words,
    ) -> None:
        self._label, self._total, self._start = label, total, start
        self._say, self._clock, self._memory = say, clock, memory
        self._began = clock()
        self._step = start
        self._recent, self._pace = Recent(label), Pace(start, clock=clock)
        self._said_at: float | None = None
        self._said_step: int | None = None

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        self._step = step
        if metrics:
            self._recent.note(metrics)
            self._pace.note(step, metrics)
        if self._said_at is None or self._clock() - self._said_at >= _LINE_EVERY_SECONDS:
            self._write_line()

    def close(self) -> None:
        """Say the last step, if it is not said yet."""
        if self._step not in (self._said_step, self._start):
            self._write_line()

    def _write_line(self) -> None:
        self._said_at, self._said_step = self._clock(), self._step
        counts = f"stage={self._label} step={self._step} total={self._total} eta={self._eta()}"
        self._say(" ".join(filter(None, (counts, self._recent.words(), self._pace.words(), self._memory()))))

    def _eta(self) -> str:
        done = self._step - self._start
        return (
            duration((self._clock() - self._began) / done * (self._total - self._step)) if done > 0 else "?"
        )
