"""`rlhf export`: a model to hand on."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlhf_cli.commands.options import Json


def export(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run, a model directory, or a LoRA adapter.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty directory.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="What the weights are stored in.")
    ] = "float32",
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Most in one file, such as 5GB.")] = "5GB",
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The base of an adapter that does not name its own.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Write a model to hand on, checked and with a card.

    Adapters are merged into their base. The result is loaded again with plain transformers and has to give the
    log-probs the model gives here. README.md tells data, results and origin from the files of the run.

    \b
    Example:
      rlhf export runs/ppo zoo-guide --dtype bfloat16
      rlhf export runs/hh/sft/adapter merged
    """
    from rlhf_cli.tools import export as tool

    done = tool.export(model, out, dtype=dtype, shard_size=shard_size, base=base)
    sys.stderr.write(
        f"{done.files} file(s), {done.megabytes:.1f} MB in {done.dtype}; loaded again, "
        f"it differs by at most {done.largest_difference:.2g}\n"
    )
    ctx.obj.show("export", asdict(done), str(done.path))
