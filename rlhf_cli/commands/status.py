"""`rlhf status`: runs at a glance."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlhf_cli.commands.options import Json


def status(
    ctx: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Runs, or folders of runs; here by default."),
    ] = None,
    json_output: Json = False,
) -> None:
    """List runs: what they come from, how far they are, what they last measured.

    One run is shown in full. A run that says it is running and holds no lock was killed.

    \b
    Example:
      rlhf status
      rlhf status runs/hh/ppo
    """
    from rlhf_cli.tools import status as tool

    found = tool.find_runs(runs or [Path()])
    if not found:
        sys.stderr.write("no runs here or in the folders below\n")
    in_full = bool(runs) and len(found) == 1
    text = tool.details_in_words(found[0]) if in_full else tool.list_in_words(found) if found else ""
    if found or json_output:
        ctx.obj.show("status", tool.as_record(found), text)
