"""Charts as places on a canvas: where lines, marks and ticks go. The template draws them and escapes every text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 40
MOST_POINTS = 400
MOST_MARKS = 40
MOST_ROWS = 60

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points to join, in the order given; NaN in y breaks the line. `style` picks a colour and a dash."""

    label: str
    points: Sequence[Point]
    style: int = 0
    dashed: bool = False
    filled: bool = False
    reference: bool = False


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A line on the canvas: SVG polylines between its gaps, and marks where there is room for them."""

    line: Line
    polylines: list[str]
    marks: list[Mark]


@dataclass(frozen=True)
class Chart:
    """One figure: what is drawn, the sentence about health, the warnings, and the same numbers as a table."""

    title: str
    unit: str
    healthy: str
    warnings: tuple[str, ...]
    x_label: str
    drawn: list[Drawn]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Words:
    """What stands around a chart."""

    title: str
    healthy: str
    unit: str = ""
    x_label: str = "step"
    warnings: tuple[str, ...] = ()


def number(value: float) -> str:
    """Write a value with 6 significant digits."""
    return f"{value:.6g}" if math.isfinite(value) else "-"


def draw(words: Words, lines: Sequence[Line]) -> Chart | None:
    """Lay out a chart; None where no line has a finite point."""
    shown = [line for line in lines if any(_finite(point) for point in line.points)]
    if all(line.reference for line in shown):
        return None
    points = [point for line in shown for point in line.points if _finite(point)]
    x_scale = Scale.of([x for x, _ in points], LEFT, WIDTH - RIGHT, tight=True)
    y_scale = Scale.of([y for _, y in points], HEIGHT - BOTTOM, TOP)
    measured = [line for line in shown if not line.reference]
    header, rows = _table(words.x_label, measured)
    return Chart(
        words.title,
        words.unit,
        words.healthy,
        words.warnings,
        words.x_label,
        [_place(line, x_scale, y_scale) for line in shown],
        x_scale.ticks(5),
        y_scale.ticks(5),
        header,
        rows,
    )


@dataclass(frozen=True)
class Scale:
    """A straight map from values to canvas coordinates."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, tight: bool = False) -> "Scale":
        """Span the values, with some air around them unless `tight`; one value alone gets a span of its own."""
        low, high = min(values), max(values)
        if low == high:
            spread = abs(low) * 0.1 or 1.0
            low, high = low - spread, high + spread
        elif not tight:
            air = 0.06 * (high - low)
            low, high = low - air, high + air
        return cls(low, high, start, end)

    def at(self, value: float) -> float:
        """Place a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[Tick]:
        """Return at most `most` + 1 round values inside the span."""
        step = round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [Tick(round(self.at(k * step), 1), f"{k * step:.4g}") for k in range(first, last + 1)]


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def thin(points: Sequence[Point], most: int) -> Sequence[Point]:
    """Keep at most about `most` points evenly, the last one among them."""
    stride = math.ceil(len(points) / most)
    return points[(len(points) - 1) % stride :: stride] if stride > 1 else points


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _place(line: Line, x_scale: Scale, y_scale: Scale) -> Drawn:
    pieces: list[list[str]] = [[]]
    marks = []
    for point in thin(line.points, MOST_POINTS):
        if not _finite(point):
            pieces.append([])
            continue
        x, y = round(x_scale.at(point[0]), 1), round(y_scale.at(point[1]), 1)
        pieces[-1].append(f"{x},{y}")
        marks.append(Mark(x, y, f"{line.label}: {number(point[1])} at {number(point[0])}"))
    if line.filled and marks:
        floor = y_scale.start
        pieces = [[f"{marks[0].x},{floor}", *piece, f"{marks[-1].x},{floor}"] for piece in pieces]
    shown = [] if line.reference or line.filled else marks if len(marks) <= MOST_MARKS else marks[-1:]
    return Drawn(line, [" ".join(piece) for piece in pieces if len(piece) > 1], shown)


def _table(x_label: str, lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """List the values under the chart, one row per x; a line that comes back to an x gives its last value there."""
    columns = [{x: y for x, y in line.points if math.isfinite(x)} for line in lines]
    places = sorted({x for column in columns for x in column})
    kept = [x for x, _ in thin([(x, 0.0) for x in places], MOST_ROWS)]
    cells = [[number(column[x]) if x in column else "" for column in columns] for x in kept]
    rows = [[number(x), *row] for x, row in zip(kept, cells, strict=True)]
    return [x_label, *(line.label for line in lines)], rows
