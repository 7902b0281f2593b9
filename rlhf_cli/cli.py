"""The program `rlhf`: its commands in the order of `--help`, exit codes, and what the shell gets back.

stdout carries the result only; everything said on the way goes to stderr. The commands are in `commands/`: one
file per family, each a function of its options that imports what it needs when it is called.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import rlhf_cli
from rlhf_cli.commands import (
    calibrate,
    config,
    data,
    evaluate,
    export,
    generate,
    init,
    launch,
    report,
    selftest,
    serve_reward,
    status,
    verify,
)
from rlhf_cli.commands.stages import STAGES, help_of, make_command
from rlhf_cli.config.problems import ConfigProblems
from rlhf_cli.errors import UsageError
from rlhf_cli.run.failures import EXIT_INTERRUPTED
from rlhf_cli.run.outcome import Outcome
from rlhf_cli.run.signals import StopFlag

# In the order of a project. A tool is a function; one with commands of its own is a Typer.
TOOLS: Mapping[str, Callable[..., None] | typer.Typer] = {
    "init": init.init,
    "check": config.check,
    "schema": config.schema,
    "data": data.app,
    "calibrate": calibrate.calibrate,
    "launch": launch.launch,
    "status": status.status,
    "verify": verify.verify,
    "generate": generate.generate,
    "compare": generate.compare,
    "chat": generate.chat,
    "eval": evaluate.app,
    "export": export.export,
    "report": report.report,
    "serve-reward": serve_reward.serve_reward,
    "selftest": selftest.app,
}


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
            program = _program_named_by(self._outcome.arguments)
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
        for title, names in (("Stages, in the order of a project", STAGES), ("Tools", TOOLS)):
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


def main(argv: Sequence[str] | None = None, stop: StopFlag | None = None) -> int:
    """Run the command line; return the exit code. `stop` listens to signals already, as it does for a stage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic
    outcome = Outcome(
        arguments, stage=next((word for word in arguments[:1] if word in STAGES), None), stop=stop
    )
    with Boundary(outcome), stop.immediate() if stop else nullcontext():
        left_with = app(arguments or ["--help"], prog_name="rlhf", standalone_mode=False, obj=outcome)
        if left_with == EXIT_INTERRUPTED:  # how typer passes on KeyboardInterrupt
            outcome.fail(KeyboardInterrupt())
    if outcome.status:
        outcome.write()
    return outcome.exit_code


def _program_named_by(arguments: Sequence[str]) -> str:
    """Name the command whose `--help` page belongs to a command line that is wrong."""
    words = ["rlhf"]
    if arguments[:1] and (arguments[0] in STAGES or arguments[0] in TOOLS):
        words.append(arguments[0])
        tool = TOOLS.get(arguments[0])
        if isinstance(tool, typer.Typer):
            words += [word for word in arguments[1:2] if word in _names_in(tool)]
    return " ".join(words)


def _names_in(tool: typer.Typer) -> set[str | None]:
    return {command.name for command in tool.registered_commands}


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


def _assemble() -> None:
    for stage in STAGES:
        app.command(stage, help=help_of(stage))(make_command(stage))
    for name, tool in TOOLS.items():
        if isinstance(tool, typer.Typer):
            app.add_typer(tool, name=name)
        else:
            app.command(name)(tool)


_assemble()
