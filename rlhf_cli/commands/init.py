"""`rlhf init`: a project to start from."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlhf_cli.commands.options import Json

TemplateName = Literal["quickstart", "hh", "sentiment", "constitution"]


def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    template: Annotated[TemplateName, typer.Option(help="Which project.")] = "quickstart",
    json_output: Json = False,
) -> None:
    """Start a project: commented YAML files, run.sh, Slurm jobs, data to try it with.

    \b
    quickstart    the whole chain on generated data, offline, on a CPU, in minutes
    hh            the whole chain on HH-RLHF, for one GPU
    sentiment     PPO with a reward that is a Python function
    constitution  feedback from a chat model that judges by your principles

    \b
    Example:
      rlhf init zoo && zoo/run.sh
    """
    from rlhf_cli.quickstart.make import write
    from rlhf_cli.tools.init import make_project

    data = (lambda out: write(out, seed=0)) if template == "quickstart" else None
    make_project(folder, template, data)
    sys.stderr.write(f"next: read {folder}/README.md, then {folder}/run.sh\n")
    ctx.obj.status, ctx.obj.artifact = "completed", folder
