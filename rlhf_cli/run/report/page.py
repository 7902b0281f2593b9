"""report.html: one page about a run, or about several side by side. It loads nothing and runs no script."""

from collections.abc import Sequence
from pathlib import Path

from rlhf_cli.run.directory import RunDir, write_atomic
from rlhf_cli.run.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, number
from rlhf_cli.run.report.figures import figures_of
from rlhf_cli.run.report.source import RunFiles, read_run

NUM_STYLES = 8
_CANVAS = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "bottom": HEIGHT - BOTTOM,
}


def write_report(root: Path) -> Path | None:
    """Write report.html of the run in `root` from the files there; return its path, None if it is no run."""
    run = read_run(root)
    if run is None:
        return None
    path = RunDir(root).report
    write_atomic(path, render([run]))
    return path


def render(runs: Sequence[RunFiles]) -> str:
    """Make the page; runs of one stage share their charts. All text of the runs is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    ).get_template("page.html.jinja")
    return page.render(
        title=" and ".join(dict.fromkeys(run.name for run in runs)),
        runs=runs,
        answered=[run for run in runs if run.answers],
        groups=group_figures(runs),
        canvas=_CANVAS,
        num_styles=NUM_STYLES,
        number=number,
        clock=clock,
        css=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
    )


def group_figures(runs: Sequence[RunFiles]) -> list[tuple[str, list[Chart]]]:
    """Draw the charts of each stage, the runs of a stage together."""
    stages = dict.fromkeys(run.manifest.stage for run in runs)
    return [(stage, figures_of([run for run in runs if run.manifest.stage == stage])) for stage in stages]


def clock(time: str | None) -> str:
    """Shorten an ISO time in UTC to the minute; "-" for none."""
    return time[:16].replace("T", " ") if time else "-"
