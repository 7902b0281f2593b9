"""`rlhf verify`: the hashes of a run and of what it was made from."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rlhf_cli.commands.options import Json
from rlhf_cli.errors import DataError


def verify(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    json_output: Json = False,
) -> None:
    """Check by their hashes that a run and all it was made from are unchanged.

    Looks at every checkpoint, at the result, and at the models the run started from, back to the first run.
    Ends with 65 where anything is not what was written.

    \b
    Example:
      rlhf verify runs/hh/ppo
    """
    from rlhf_cli.tools import verify as tool

    findings = tool.verify(run)
    good = not any(it.problem for it in findings)
    ctx.obj.show("verify", {"ok": good, "findings": list(map(asdict, findings))}, tool.in_words(findings))
    if not good:
        ctx.obj.exit_code = DataError.exit_code
