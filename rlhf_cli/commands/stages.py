"""The five stages as commands, which differ in their names only.

A stage, and with it torch, is imported once its configuration and its run directory are known to be good.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import typer

from rlhf_cli.commands.options import AllowDrift, ConfigFile, DryRun, Fresh, Json, Overrides, RunDirectory
from rlhf_cli.errors import UnavailableError
from rlhf_cli.redaction import redact
from rlhf_cli.run.outcome import Outcome

if TYPE_CHECKING:
    from rlhf_cli.config.load import LoadedConfig

StageName = Literal["sft", "collect", "train-rm", "ppo", "dpo"]
STAGES: dict[StageName, str] = {
    "sft": "Fine-tune a model on demonstrations.",
    "collect": "Sample pairs of answers and have a labeler compare them.",
    "train-rm": "Train a reward model on comparisons.",
    "ppo": "Optimise a model against a reward with PPO.",
    "dpo": "Optimise a model on comparisons directly.",
}
_HELP = """{summary}

Reads one YAML file, works in its run_dir, and prints the path of the result. The same command again
continues an interrupted run, and returns at once when the run is complete.

\b
Example:
  rlhf {stage} --config {stage}.yaml --set seed=1
"""


def help_of(stage: StageName) -> str:
    """Write the help page of a stage."""
    return _HELP.format(stage=stage, summary=STAGES[stage])


def make_command(stage: StageName) -> Callable[..., None]:
    """Make the function behind `rlhf STAGE`."""

    def command(
        ctx: typer.Context,
        config: ConfigFile,
        overrides: Overrides = None,
        run_dir: RunDirectory = None,
        dry_run: DryRun = False,
        fresh: Fresh = False,
        allow_drift: AllowDrift = None,
        json_output: Json = False,
    ) -> None:
        from rlhf_cli.config.load import load_config

        loaded = load_config(stage, config, overrides or (), run_dir)
        if dry_run:
            _show_plan(loaded, ctx.obj)
        else:
            run_stage(loaded, ctx.obj, fresh=fresh, allowed_drift=allow_drift or ())

    return command


def _show_plan(loaded: "LoadedConfig[Any]", outcome: Outcome) -> None:
    from rlhf_cli.config.load import render_resolved

    with redirect_stdout(sys.stderr):
        plan = import_stage(loaded.stage).plan(loaded.config)
    outcome.status, outcome.run_dir = "dry_run", Path(loaded.config.run_dir)
    (sys.stderr if outcome.as_json else sys.stdout).write(redact(f"{render_resolved(loaded)}\n{plan}\n"))


def run_stage(
    loaded: "LoadedConfig[Any]", outcome: Outcome, *, fresh: bool, allowed_drift: Sequence[str] = ()
) -> None:
    """Run a configured stage in its run directory, unless that is done already."""
    from rlhf_cli.config.load import differing_keys, render_resolved
    from rlhf_cli.run.claim import RunSpec, find_completed
    from rlhf_cli.run.session import open_run

    outcome.run_dir = root = Path(loaded.config.run_dir)
    _refuse_many_processes()
    spec = RunSpec(
        stage=loaded.stage,
        root=root,
        digest=loaded.digest,
        tree=loaded.tree,
        source_text=loaded.source_text,
        resolved_text=render_resolved(loaded),
        argv=["rlhf", *outcome.arguments],
        allowed_drift=allowed_drift,
    )
    if not fresh and not loaded.reopens and (manifest := find_completed(spec)):
        sys.stderr.write(f"already complete: {root} (--fresh starts anew)\n")
        outcome.complete("already_complete", manifest)
        return
    with (
        open_run(spec, fresh=fresh, stop=outcome.stop, differing_keys=differing_keys) as run,
        redirect_stdout(sys.stderr),
        run.stop.immediate(),
    ):
        outcome.run = run
        run.finish(import_stage(loaded.stage).run(loaded.config, run))
    outcome.complete("completed", run.manifest)


def _refuse_many_processes() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise UnavailableError(
            f"a run is one process for now, and the launcher started {world_size}",
            where="WORLD_SIZE",
            fix="start one process: rlhf without torchrun",
        )


def import_stage(stage: str) -> ModuleType:
    """Import the module of a stage, and with it torch."""
    return importlib.import_module(f"rlhf_cli.stages.{stage.replace('-', '_')}")
