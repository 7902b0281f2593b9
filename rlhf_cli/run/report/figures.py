"""The figures of a report: every panel over one run, or over several of one stage laid on top of each other."""

import math
from collections.abc import Iterator, Sequence

from rlhf_cli.run.report.charts import Chart, Line, Point, Words, draw
from rlhf_cli.run.report.panels import CALIBRATION, FRONTIER, HISTOGRAM, MARGINS, Panel, panels_of
from rlhf_cli.run.report.source import RunFiles

_FROM = {"histogram": "score_histogram", "margins": "margin_histogram"}


def figures_of(runs: Sequence[RunFiles]) -> list[Chart]:
    """Draw all charts of runs of one stage."""
    stage = runs[0].manifest.stage
    names = list(dict.fromkeys(name for run in runs for name in run.metric_names))
    charts = [_curve(panel, runs) for panel in panels_of(stage, names)]
    special = [_frontier(runs), _histogram(HISTOGRAM, runs), _histogram(MARGINS, runs), _calibration(runs)]
    main = 2 if stage == "ppo" else 3
    ordered = [*charts[:main], *special, *charts[main:]]
    return [chart for chart in ordered if chart is not None]


def _curve(panel: Panel, runs: Sequence[RunFiles]) -> Chart | None:
    lines: list[Line] = []
    for number, run in enumerate(runs):
        for prefix, words in (("", "training"), ("eval/", "held out")):
            label = words if len(runs) == 1 else f"{run.name}, {words}"
            style = number if len(runs) > 1 else int(bool(prefix))
            points = _points(run, prefix + panel.metric)
            lines.append(Line(label, points, style, dashed=bool(prefix)))
    return draw(_words(panel, runs), lines)


def _points(run: RunFiles, metric: str) -> list[Point]:
    return [(row.get("step", math.nan), row[metric]) for row in run.rows if metric in row]


def _words(panel: Panel, runs: Sequence[RunFiles], x_label: str = "step") -> Words:
    """Put the doctor's findings about a metric under its chart."""
    found = [
        f"{run.name}: {finding.text}" if len(runs) > 1 else finding.text
        for run in runs
        for when, finding in run.findings
        if when == "now" and finding.metric == panel.metric
    ]
    return Words(panel.title, panel.healthy, panel.unit, x_label, tuple(found))


def _frontier(runs: Sequence[RunFiles]) -> Chart | None:
    """Draw reward over KL, in the order of time; held-out where it was measured, else training."""
    lines = []
    for number, run in enumerate(runs):
        for prefix, words in (("", "training"), ("eval/", "held out")):
            kl, reward = f"{prefix}kl", f"{prefix}reward"
            points = [(row[kl], row[reward]) for row in run.rows if kl in row and reward in row]
            label = words if len(runs) == 1 else f"{run.name}, {words}"
            style = number if len(runs) > 1 else int(bool(prefix))
            lines.append(Line(label, points, style, dashed=bool(prefix)))
    return draw(_words(FRONTIER, runs, "KL, nats per answer"), lines)


def _histogram(panel: Panel, runs: Sequence[RunFiles]) -> Chart | None:
    """Draw the recorded counts as shares, in steps."""
    lines: list[Line] = []
    for run in runs:
        match run.evaluation.get(_FROM[panel.metric]):
            case {"edges": list(edges), **counts}:
                for name, column in counts.items():
                    if isinstance(column, list):
                        label = str(name) if len(runs) == 1 else f"{run.name}, {name}"
                        style = len(lines)
                        steps = list(_stairs(edges, column))
                        lines.append(Line(label, steps, style, dashed=name == "rejected", filled=True))
    x_label = "score" if panel is HISTOGRAM else "margin"
    return draw(_words(panel, runs, x_label), lines)


def _stairs(edges: Sequence[float], counts: Sequence[float]) -> Iterator[Point]:
    total = sum(counts) or 1
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        yield left, count / total
        yield right, count / total


def _calibration(runs: Sequence[RunFiles]) -> Chart | None:
    lines = [Line("perfect", [(0.5, 0.5), (1.0, 1.0)], reference=True)]
    for number, run in enumerate(runs):
        match run.evaluation.get("calibration"):
            case list(bins):
                points = [(it["confidence"], it["accuracy"]) for it in bins if it.get("count")]
                label = "held out" if len(runs) == 1 else run.name
                lines.append(Line(label, points, number))
    return draw(_words(CALIBRATION, runs, "confidence"), lines)
