"""Options that several commands share."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
AllowDrift = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-drift",
        metavar="KEY",
        help="Go on though this differs from earlier attempts, such as optim.lr or data.train. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, on failure too.")]


class WholeSentences(TyperGroup):
    """Lists its commands with their whole first sentences, cut nowhere."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
            )


def tool_group(words: str, example: str) -> typer.Typer:
    """Make a tool with commands of its own; its help page is like all others."""
    page = f"{words}\n\n\b\nExample:\n  {example}"
    return typer.Typer(help=page, cls=WholeSentences, rich_markup_mode=None, add_completion=False)


def options_from(record: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass; the command itself takes the whole as `options`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def with_record(**given: object) -> None:
            values = {field.name: given.pop(field.name) for field in fields(record)}
            command(options=record(**values), **given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        asked = inspect.signature(record, eval_str=True).parameters.values()
        parameters = [it.replace(kind=it.KEYWORD_ONLY) for it in (*own, *asked) if it.name != "options"]
        # What typer reads a command by.
        with_record.__doc__ = command.__doc__
        with_record.__annotations__ = {it.name: it.annotation for it in parameters}
        with_record.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return with_record

    return decorate
