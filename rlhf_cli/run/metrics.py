"""Weighted means that add up exactly over micro-batches and ranks, and the metrics.jsonl they end in."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.run.directory import append_json_line, read_json_lines, write_atomic
from rlhf_cli.run.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean still in two parts, so that parts can be added before the one division."""

    total: float
    weight: float

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """total / weight; NaN where nothing was counted."""
        return self.total / self.weight if self.weight else math.nan


def merge(parts: Iterable[Mapping[str, Mean]]) -> dict[str, Mean]:
    """Add the means of equal name; a name missing from some parts counts where it is present."""
    merged: dict[str, Mean] = {}
    for part in parts:
        for name, mean in part.items():
            merged[name] = merged.get(name, Mean(0.0, 0.0)) + mean
    return merged


def merge_together(metrics: Mapping[str, Mean], ranks: Ranks) -> dict[str, Mean]:
    """Add up, together, the means that each process has counted."""
    if ranks.size == 1:
        return dict(metrics)
    told = ranks.gather({name: [mean.total, mean.weight] for name, mean in metrics.items()})
    return merge({name: Mean(*mean) for name, mean in each.items()} for each in told)


def json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values as strict JSON can hold them: NaN and infinities become null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class MetricsLog:
    """metrics.jsonl: one line `{"step", "time", <metrics>}` per step; time in Unix seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[dict[str, object]] = []

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write the line of `step` and flush it to disk; where the disk refuses, `flush` is the next chance."""
        self._waiting.append({"step": step, "time": round(time.time(), 3), **json_numbers(values)})
        with suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises OSError where the disk refuses; nothing is lost by that."""
        while self._waiting:
            append_json_line(self.path, self._waiting[0])
            del self._waiting[0]

    def read(self) -> list[dict[str, float]]:
        """Return all lines, oldest first; null reads as NaN, a torn line is passed over."""
        return [{name: _number(value) for name, value in row.items()} for row in read_json_lines(self.path)]

    def truncate_after(self, step: int) -> None:
        """Drop lines of later steps, and a torn one, so that a resumed run writes each step once."""
        self._waiting.clear()
        if self.path.exists():
            kept = [row for row in read_json_lines(self.path) if _number(row.get("step")) <= step]
            write_atomic(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else math.nan
