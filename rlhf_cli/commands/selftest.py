"""`rlhf selftest chaos`: does this installation, on this machine, keep its promise that nothing is lost?"""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from rlhf_cli.commands.options import tool_group
from rlhf_cli.commands.stages import STAGES
from rlhf_cli.errors import RlhfError, UsageError

app = tool_group("Test this installation on this machine.", "rlhf selftest chaos")


@dataclass(frozen=True)
class Plan:
    """What is done to the runs of each stage.

    kills, terms, corruptions   how many random SIGKILLs, random SIGTERMs and damaged checkpoints
    operations                  what happens at each durable operation: kill, ENOSPC, EIO
    every                       1 strikes each of them, 10 each tenth
    """

    stages: list[str]
    kills: int = 0
    terms: int = 0
    corruptions: int = 0
    operations: list[str] = dataclasses.field(default_factory=list)
    every: int = 1
    nan: bool = False
    seed: int = 0
    work: str | None = None


_QUICK = {"kills": 5, "terms": 3, "corruptions": 40, "operations": ["kill", "ENOSPC", "EIO"], "every": 12}


@app.callback()
def _root() -> None:
    """Keeps `chaos` a command with a name of its own."""


@app.command("chaos")
def chaos(
    stage: Annotated[str, typer.Option(help="Stages to strike, by commas.")] = ",".join(STAGES),
    kills: Annotated[int, typer.Option(min=0, help="Random SIGKILLs for each stage.")] = 0,
    every_operation: Annotated[
        bool,
        typer.Option("--every-operation", help="Kill once at each durable operation, and run the control."),
    ] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="Fail each durable operation with a full and with a broken disk.")
    ] = False,
    term: Annotated[int, typer.Option(min=0, help="SIGTERMs at random moments for each stage.")] = 0,
    corrupt: Annotated[int, typer.Option(min=0, help="Corrupted checkpoints for each training stage.")] = 0,
    nan: Annotated[
        bool, typer.Option("--nan", help="Put a NaN into every step of each training stage.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides the random moments and damages.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Work here and keep it; else in a temporary folder.")
    ] = None,
) -> None:
    """Kill tiny runs, break their disk, damage their checkpoints, and see whether they end as if nothing had been.

    Every struck run is started again by the same command, and its weights, optimizer and metrics are compared with
    an undisturbed run, byte for byte. Without options, a tour of a few minutes.

    \b
    Example:
      rlhf selftest chaos --stage ppo --kills 200
    """
    chosen = stage.split(",")
    if unknown := [name for name in chosen if name not in STAGES]:
        raise UsageError(f"there is no stage {unknown[0]!r}", fix=f"use some of {', '.join(STAGES)}")
    plan = Plan(chosen, seed=seed, work=str(work) if work else None)
    if any((kills, every_operation, errors, term, corrupt, nan)):
        operations = ["kill"] * every_operation + ["ENOSPC", "EIO"] * errors
        plan = dataclasses.replace(
            plan, kills=kills, terms=term, corruptions=corrupt, operations=operations, nan=nan
        )
    else:
        plan = dataclasses.replace(plan, **_QUICK)  # type: ignore[arg-type]
    run_apart(plan)


def run_apart(plan: Plan) -> None:
    """Run a plan in a process of its own: with one thread, since threads add up in another order, and offline."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "rlhf_cli.chaos", json.dumps(dataclasses.asdict(plan))]
    if subprocess.run(command, env=env, check=False).returncode:
        raise RlhfError("a promise was broken, see above", fix="Report this with the lines above.")
