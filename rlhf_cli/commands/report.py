"""`rlhf report`: what runs did, on one HTML page."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run directories, finished or not.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; else RUN/report.html."),
    ] = None,
) -> None:
    """Show curves, findings, data and origin of runs on one page.

    The page needs no network and runs no script. Several runs lie on top of each other, those of one stage in
    the same charts, and --output is then required. Prints the path of the page.

    \b
    Example:
      rlhf report runs/ppo
      rlhf report runs/ppo runs/ppo-lr2 --output both.html
    """
    from rlhf_cli.errors import UsageError
    from rlhf_cli.run.directory import RunDir, write_atomic
    from rlhf_cli.run.report.page import render
    from rlhf_cli.run.report.source import read_runs

    if output is None and len(runs) > 1:
        raise UsageError("several runs have no common place for a page", fix="Add --output FILE.")
    path = output or RunDir(runs[0]).report
    page = render(read_runs(runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    sys.stdout.write(f"{path}\n")
