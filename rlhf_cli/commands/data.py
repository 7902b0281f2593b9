"""`rlhf data`: look at data sets, measure them, convert them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlhf_cli.commands.options import Json, tool_group
from rlhf_cli.errors import UsageError

if TYPE_CHECKING:
    from rlhf_cli.tools.data_set import DataSet

app = tool_group("Look at data sets, measure them, convert them.", "rlhf data show pairs.jsonl")

DataPath = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file, a folder, a collect run, a Hub name, or a stage's YAML file."
    ),
]
KindName = Literal["demonstrations", "comparisons", "prompts"]
AsKind = Annotated[
    KindName | None, typer.Option("--as", help="Read the rows as these; found out by default.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Rename a column first. Repeatable."),
]
Format = Annotated[
    str, typer.Option("--format", metavar="NAME", help="The format of the rows; found out by default.")
]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="The split of a folder or Hub data set.")]
ModelPath = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Show tokens as this model would be trained on them."),
]
MaxLength = Annotated[int, typer.Option(min=2, metavar="N", help="Longest row in tokens, with --model.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Read the first rows only.")]
EvalPath = Annotated[
    str | None, typer.Option("--eval", metavar="DATA", help="Evaluation rows, to look for prompts in both.")
]


@app.command("show")
def show(
    ctx: typer.Context,
    data: DataPath,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, metavar="N", help="How many rows.")] = 3,
    model: ModelPath = None,
    kind: AsKind = None,
    format_name: Format = "auto",
    columns: Columns = None,
    max_length: MaxLength = 1024,
    json_output: Json = False,
) -> None:
    """Show rows, and with --model what is trained.

    Says first which format was found and why. Trained tokens are coloured on a terminal and stand between ⟦ and ⟧
    elsewhere. A YAML file brings its own model and settings.

    \b
    Example:
      rlhf data show pairs.jsonl --model runs/hh/sft
    """
    from rlhf_cli.tools import data_show as tool

    limit = None if data.endswith((".yaml", ".yml")) else max(rows, 50)
    found = _open(data, (kind, format_name, columns), limit=limit, model=model, max_length=max_length)
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not ctx.obj.as_json
    formats, shown = tool.show(found, rows, tool.green if colours else tool.brackets)
    record = {"formats": formats, "rows": [{"origin": it.origin, "parts": it.parts} for it in shown]}
    ctx.obj.show("data-show", record, tool.in_words(formats, shown, tool.dim if colours else str))


@app.command("stats")
def stats(
    ctx: typer.Context,
    data: DataPath,
    eval_data: EvalPath = None,
    model: ModelPath = None,
    kind: AsKind = None,
    format_name: Format = "auto",
    columns: Columns = None,
    max_length: MaxLength = 1024,
    json_output: Json = False,
) -> None:
    """Measure lengths, repeats, overlap, biases.

    With --model also what is cut, dropped, and never ends in EOS. A YAML file brings its own model and settings.

    \b
    Example:
      rlhf data stats train.jsonl --eval test.jsonl --model runs/hh/sft
    """
    from rlhf_cli.tools import data_stats as tool

    reading = (kind, format_name, columns)
    report = tool.measure(_open(data, reading, eval_path=eval_data, model=model, max_length=max_length))
    ctx.obj.show("data-stats", tool.as_record(report), tool.in_words(report))


TargetName = Literal["preference", "trl", "hh", "prompt_completion", "messages", "prompts"]


@app.command("convert")
def convert(
    ctx: typer.Context,
    data: DataPath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new .jsonl or .parquet file.")],
    to: Annotated[TargetName, typer.Option(help="What the rows become.")],
    kind: AsKind = None,
    format_name: Format = "auto",
    columns: Columns = None,
    split: Split = "train",
    json_output: Json = False,
) -> None:
    """Write rows in another format.

    Comparisons become preference, trl or hh; of their chosen answers and of demonstrations come
    prompt_completion and messages; of anything come prompts.

    \b
    Example:
      rlhf data convert hh/train.jsonl.gz pairs.jsonl --to preference
    """
    from rlhf_cli.tools.data_convert import convert as write

    num_rows, left_out = write(_open(data, (kind, format_name, columns), split=split), out, to)
    sys.stderr.write(
        f"{num_rows} rows written" + (f", {left_out} left out that {to} cannot say\n" if left_out else "\n")
    )
    ctx.obj.show("data-convert", {"path": str(out), "rows": num_rows, "left_out": left_out}, str(out))


Reading = tuple[KindName | None, str, list[str] | None]
"""As what the rows are read: kind, format, renamed columns."""


def _open(
    path: str,
    reading: Reading,
    *,
    split: str = "train",
    eval_path: str | None = None,
    limit: int | None = None,
    model: str | None = None,
    max_length: int = 1024,
) -> "DataSet":
    """Open what the command line names: a configuration, or rows with the options beside them."""
    from pydantic import ValidationError

    from rlhf_cli.config.sections import Data, Model, Source
    from rlhf_cli.tools.data_set import Request, open_data_set, request_from_config

    if path.endswith((".yaml", ".yml")):
        return open_data_set(request_from_config(Path(path)))
    kind, format_name, columns = reading
    renamed = dict(_split_column(it) for it in columns or ())
    shape = {"format": format_name, "columns": renamed, "split": split}
    try:
        sources = [Source.model_validate({"path": path, "limit": limit, **shape})]
        held_out = [Source.model_validate({"path": eval_path, **shape})] if eval_path else None
    except ValidationError as error:
        problem = error.errors()[0]
        option = "".join(f"--{key}: " for key in problem["loc"][:1])
        raise UsageError(option + problem["msg"], fix="See `rlhf data --help`.") from None
    data = Data(train=sources, eval=held_out, max_length=max_length, on_bad_row="skip")
    return open_data_set(Request(data, kind, Model(path=model) if model else None))


def _split_column(text: str) -> tuple[str, str]:
    ours, found, theirs = text.partition("=")
    if not (ours and found and theirs):
        raise UsageError(f"--column {text!r} is not OURS=THEIRS", fix="Write, say, --column prompt=question.")
    return ours, theirs
