"""The metrics of a run as rules look at them: one value per iteration, and the middle of the first and the newest."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean, median

Row = Mapping[str, float]

WINDOW = 3
"""How many of the newest, and of the first, values are judged by the middle one of them: one odd value is none."""


class History:
    """The metrics of a run, oldest first; for PPO one value per iteration, however often it was logged."""

    def __init__(self, rows: Sequence[Row]) -> None:
        training = [row for row in rows if not any(name.startswith("eval/") for name in row)]
        self._training = [_mean_row(list(same)) for _, same in groupby(training, key=_iteration_of)]
        self._all = rows

    def values(self, name: str) -> list[float]:
        """Return the finite values of a metric."""
        rows = self._all if name.startswith("eval/") else self._training
        return [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]

    def newest(self, name: str, *, at_least: int = WINDOW) -> float:
        """Return the median of the newest values; NaN, for which no comparison holds, below `at_least` values."""
        values = self.values(name)
        return median(values[-WINDOW:]) if len(values) >= at_least else math.nan

    def first(self, name: str) -> float:
        """Return the median of the first values; NaN where the window of the newest would overlap."""
        values = self.values(name)
        return median(values[:WINDOW]) if len(values) >= 2 * WINDOW else math.nan


def _iteration_of(row: Row) -> object:
    """Tell rows of one PPO iteration by what it measured once; any other row stands alone."""
    measured = tuple(row.get(name) for name in ("reward", "kl", "length"))
    return measured if None not in measured else id(row)


def _mean_row(rows: Sequence[Row]) -> Row:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean([row[name] for row in rows if name in row]) for name in names}
