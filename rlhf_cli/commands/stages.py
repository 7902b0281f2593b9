"""The five stages as commands, which differ in their names only.

A stage, and with it torch, is imported once its configuration and its run directory are known to be good.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import typer

from rlhf_cli.commands.options import AllowDrift, ConfigFile, DryRun, Fresh, Json, Overrides, RunDirectory
from rlhf_cli.errors import UnavailableError
from rlhf_cli.redaction import redact
from rlhf_cli.run.outcome import Outcome
from rlhf_cli.run.ranks import Ranks, find_place, join
from rlhf_cli.run.signals import StopFlag

if TYPE_CHECKING:
    from rlhf_cli.config.load import LoadedConfig
    from rlhf_cli.run.claim import RunSpec
    from rlhf_cli.run.session import Run

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
    from rlhf_cli.config.load import render_resolved
    from rlhf_cli.run.claim import RunSpec

    outcome.run_dir = root = Path(loaded.config.run_dir)
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
    _refuse_many_processes(loaded.stage)
    listening = nullcontext(outcome.stop) if outcome.stop else StopFlag().installed()
    with listening as stop:
        ranks = join(stop)
        outcome.rank = ranks.index
        if not ranks.lead(lambda: _finish_early(spec, outcome, fresh=fresh or loaded.reopens)):
            with (
                _take_part(spec, ranks, stop, fresh=fresh) as run,
                redirect_stdout(sys.stderr),
                run.stop.immediate(),
            ):
                outcome.run = run
                run.finish(import_stage(loaded.stage).run(loaded.config, run))
            ranks.wait()
            outcome.complete("completed", run.manifest)


def _finish_early(spec: "RunSpec", outcome: Outcome, *, fresh: bool) -> bool:
    """Say whether this very run is done already, and if so, report it."""
    from rlhf_cli.run.claim import find_completed

    manifest = None if fresh else find_completed(spec)
    if manifest:
        sys.stderr.write(f"already complete: {spec.root} (--fresh starts anew)\n")
        outcome.complete("already_complete", manifest)
    return manifest is not None


@contextmanager
def _take_part(spec: "RunSpec", ranks: Ranks, stop: StopFlag, *, fresh: bool) -> "Iterator[Run]":
    """Open the run, or follow the process that has opened it."""
    from rlhf_cli.config.load import differing_keys
    from rlhf_cli.run.session import follow_run, open_run

    with ExitStack() as stack:
        with ranks.leader_first():
            opened = (
                open_run(spec, fresh=fresh, stop=stop, ranks=ranks, differing_keys=differing_keys)
                if ranks.leads
                else follow_run(spec, ranks, stop)
            )
            run = stack.enter_context(opened)
        yield run


def _refuse_many_processes(stage: str) -> None:
    size = find_place().size
    if size > 1 and stage == "collect":
        raise UnavailableError(
            f"`rlhf collect` is one process, and the launcher started {size}",
            where="WORLD_SIZE",
            fix="start it without torchrun or srun",
        )


def import_stage(stage: str) -> ModuleType:
    """Import the module of a stage, and with it torch."""
    return importlib.import_module(f"rlhf_cli.stages.{stage.replace('-', '_')}")
