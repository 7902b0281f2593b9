"""report.html: one page about a run, its curves drawn as SVG and nothing loaded from outside."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.run.directory import RunDir, write_atomic
from rlhf_cli.run.manifest import read_manifest
from rlhf_cli.run.metrics import MetricsLog

_WIDTH, _HEIGHT = 320, 120
_MOST_POINTS = 500


@dataclass(frozen=True)
class Curve:
    """One metric over steps; `lines` are the SVG polylines between its gaps."""

    name: str
    lines: list[str]
    low: float
    high: float
    last: float
    first_step: int
    last_step: int


def write_report(root: Path) -> Path | None:
    """Write report.html of the run in `root` from the files there; return its path, None if it is no run."""
    from jinja2 import Environment

    run_dir = RunDir(root)
    manifest = read_manifest(run_dir)
    if manifest is None:
        return None
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    text = page.render(
        run=manifest,
        name=root.absolute().name,
        curves=read_curves(MetricsLog(run_dir.metrics).read()),
        config=_read(run_dir.resolved),
        data_report=_read_json(run_dir.data_report),
        samples=_read(run_dir.samples),
        size=(_WIDTH, _HEIGHT),
    )
    write_atomic(run_dir.report, text)
    return run_dir.report


def read_curves(rows: Sequence[dict[str, float]]) -> list[Curve]:
    """Draw every metric of metrics.jsonl that has a finite value."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("step", "time"))
    curves = (_draw(name, [(row["step"], row[name]) for row in rows if name in row]) for name in names)
    return [curve for curve in curves if curve]


def _draw(name: str, points: list[tuple[float, float]]) -> Curve | None:
    values = [value for _, value in points if math.isfinite(value)]
    if not values:
        return None
    stride = math.ceil(len(points) / _MOST_POINTS)
    points = points[(len(points) - 1) % stride :: stride]  # keeps the last one
    low, high = min(values), max(values)
    first_step, last_step = points[0][0], points[-1][0]
    lines: list[list[str]] = [[]]
    for step, value in points:
        if math.isfinite(value):
            x = _WIDTH * (step - first_step) / (last_step - first_step or 1)
            y = _HEIGHT * (1 - (value - low) / (high - low or 1))
            lines[-1].append(f"{x:.1f},{y:.1f}")
        elif lines[-1]:
            lines.append([])
    drawn = [" ".join(line) for line in lines if line]
    return Curve(name, drawn, low, high, values[-1], int(first_step), int(last_step))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _read_json(path: Path) -> str:
    text = _read(path)
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
