"""The command line: `rlhf STAGE --config FILE`, the tools beside it, and what the shell gets back.

stdout carries the result only; everything said on the way goes to stderr. A stage, and with it torch, is
imported once its configuration and its run directory are known to be good.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import rlhf_cli
from rlhf_cli.config.problems import ConfigProblems
from rlhf_cli.errors import UnavailableError, UsageError
from rlhf_cli.run.failures import EXIT_INTERRUPTED
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
_STAGE_HELP = """{summary}

Reads one YAML file, works in its run_dir, and prints the path of the result. The same command again
continues an interrupted run, and returns at once when the run is complete.

\b
Example:
  rlhf {stage} --config {stage}.yaml --set seed=1
"""

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as optim.lr=1e-5. Repeatable."),
]
RunDirectory = Annotated[
    str | None, typer.Option("--run-dir", metavar="DIR", help="Work here instead of the file's run_dir.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved configuration and the plan; write nothing.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Rename an old run aside and start anew.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, on failure too.")]


class Boundary:
    """Lets no exception out: what ends the command becomes a failed outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, SystemExit):
            return False
        if isinstance(error, typer.TyperException):
            program = " ".join(filter(None, ("rlhf", self._outcome.stage)))
            error = UsageError(error.format_message(), fix=f"See `{program} --help`.")
        self._outcome.fail(error)
        if self._outcome.error and isinstance(error, ConfigProblems):
            self._outcome.error["problems"] = [
                {"key": it.key, "message": it.message, "where": it.where, "fix": it.help or None}
                for it in error.problems
            ]
        return True


class StagesFirst(TyperGroup):
    """Lists the stages and the tools under headings of their own."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        tools = [name for name in self.commands if name not in STAGES]
        for title, names in (("Stages, in the order of a project", list(STAGES)), ("Tools", tools)):
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in names])


app = typer.Typer(
    cls=StagesFirst,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 bug, 2 usage, 65 bad data, 66 input missing, 69 device or service unavailable, "
    "71 out of memory or disk, 73 run directory conflict, 75 interrupted with a checkpoint (run the same command "
    "again), 76 diverged, 78 bad configuration, 130 second Ctrl-C.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic
    outcome = Outcome(arguments, stage=next((word for word in arguments if word in STAGES), None))
    with Boundary(outcome):
        left_with = app(arguments or ["--help"], prog_name="rlhf", standalone_mode=False, obj=outcome)
        if left_with == EXIT_INTERRUPTED:  # how typer passes on KeyboardInterrupt
            outcome.fail(KeyboardInterrupt())
    if outcome.status:
        outcome.write()
    return outcome.exit_code


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"rlhf {rlhf_cli.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reinforcement learning from human feedback, from demonstrations to an aligned model.

    \b
    Example:
      rlhf sft --config configs/quickstart/sft.yaml
    """


def _add_stage_command(stage: StageName, summary: str) -> None:
    @app.command(stage, help=_STAGE_HELP.format(stage=stage, summary=summary))
    def command(
        ctx: typer.Context,
        config: ConfigFile,
        overrides: Overrides = None,
        run_dir: RunDirectory = None,
        dry_run: DryRun = False,
        fresh: Fresh = False,
        json_output: Json = False,
    ) -> None:
        from rlhf_cli.config.load import load_config

        loaded = load_config(stage, config, overrides or (), run_dir)
        if dry_run:
            _show_plan(loaded, ctx.obj)
        else:
            _run_stage(loaded, ctx.obj, fresh=fresh)


for _stage, _summary in STAGES.items():
    _add_stage_command(_stage, _summary)


def _show_plan(loaded: "LoadedConfig[Any]", outcome: Outcome) -> None:
    from rlhf_cli.config.load import render_resolved

    with redirect_stdout(sys.stderr):
        plan = _import_stage(loaded.stage).plan(loaded.config)
    outcome.status, outcome.run_dir = "dry_run", Path(loaded.config.run_dir)
    (sys.stderr if outcome.as_json else sys.stdout).write(f"{render_resolved(loaded)}\n{plan}\n")


def _run_stage(loaded: "LoadedConfig[Any]", outcome: Outcome, *, fresh: bool) -> None:
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
    )
    if not fresh and not loaded.reopens and (manifest := find_completed(spec)):
        sys.stderr.write(f"already complete: {root} (--fresh starts anew)\n")
        outcome.complete("already_complete", manifest)
        return
    with open_run(spec, fresh=fresh, differing_keys=differing_keys) as run, redirect_stdout(sys.stderr):
        outcome.run = run
        run.finish(_import_stage(loaded.stage).run(loaded.config, run))
    outcome.complete("completed", run.manifest)


def _refuse_many_processes() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise UnavailableError(
            f"a run is one process for now, and the launcher started {world_size}",
            where="WORLD_SIZE",
            fix="start one process: rlhf without torchrun",
        )


def _import_stage(stage: str) -> ModuleType:
    return importlib.import_module(f"rlhf_cli.stages.{stage.replace('-', '_')}")


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: Annotated[StageName | None, typer.Option(help="The stage that the file is for.")] = None,
) -> None:
    """Validate a configuration without running it.

    Without --stage, the stage is the one that line 1 names, as in `# rlhf: sft` or a $schema modeline;
    else the one stage that has such keys.

    \b
    Example:
      rlhf check --config sft.yaml
    """
    from rlhf_cli.config.guess import guess_stage
    from rlhf_cli.config.load import load_config

    name = stage or guess_stage(config, overrides or ())
    load_config(name, config, overrides or ())
    sys.stdout.write(f"ok: {config} is a valid {name} config\n")


@app.command()
def schema(stage: Annotated[StageName, typer.Argument(help="The stage to describe.")]) -> None:
    """Print the JSON Schema of a stage's configuration.

    \b
    Example:
      rlhf schema sft > sft.schema.json
    """
    from rlhf_cli.config.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(stage), indent=2) + "\n")
