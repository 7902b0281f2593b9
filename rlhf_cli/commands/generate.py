"""`rlhf generate`, `rlhf compare`, `rlhf chat`: hear what models answer."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_cli.commands.options import Json
from rlhf_cli.errors import MissingInputError, RunConflictError, UsageError
from rlhf_cli.run.outcome import write_out

if TYPE_CHECKING:
    from rlhf_cli.records import Prompt
    from rlhf_cli.tools.manner import TemplateMode
    from rlhf_cli.tools.speaker import Speaker

Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="Runs, model directories or Hub names.")]
PromptText = Annotated[
    list[str] | None, typer.Option("--prompt", "-p", metavar="TEXT", help="A prompt. Repeatable.")
]
PromptFile = Annotated[
    str | None, typer.Option("--prompts", metavar="DATA", help="Rows whose prompts are asked, in any format.")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Ask the first N rows only.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How to answer: temperature, top_p, max_new_tokens, seed, template (auto, chat, plain). Repeatable.",
    ),
]


def generate(
    ctx: typer.Context,
    models: Models,
    prompt: PromptText = None,
    prompts: PromptFile = None,
    limit: Limit = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write JSON lines here.")
    ] = None,
    settings: Settings = None,
    json_output: Json = False,
) -> None:
    """Answer prompts with one model or several.

    Without --prompt and --prompts, one prompt is read from stdin. Every model gets the same random numbers;
    --set samples=4 asks each prompt four times.

    \b
    Example:
      rlhf generate runs/sft runs/ppo --prompts test.jsonl --limit 5
    """
    from rlhf_cli.tools.manner import read_manner

    manner = read_manner(settings or ())
    if out and out.exists():
        raise RunConflictError(
            f"{out} exists", where=str(out), fix="Remove it first, or choose another name."
        )
    records = _prompts(prompt, prompts, limit)
    from rlhf_cli.tools import generate as tool  # torch, and seconds to import it

    rows = tool.answers(_speakers(models, manner.template), records, manner)
    kept = []
    for row in rows:
        kept += [answer.as_record() for answer in row]
        if row and not out and not ctx.obj.as_json:
            write_out(tool.one_below_the_other(row) + "\n")
    if out:
        out.write_text("".join(json.dumps(it, ensure_ascii=False) + "\n" for it in kept), encoding="utf-8")
    if out or ctx.obj.as_json:
        ctx.obj.show("generate", {"path": str(out)} if out else {"answers": kept}, str(out))


def compare(
    ctx: typer.Context,
    one: Annotated[str, typer.Argument(metavar="A", help="A run, a model directory or a Hub name.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    prompt: PromptText = None,
    prompts: PromptFile = None,
    limit: Limit = 5,
    settings: Settings = None,
    json_output: Json = False,
) -> None:
    """Read the answers of two models side by side.

    `rlhf eval wins` counts whose are better.

    \b
    Example:
      rlhf compare runs/sft runs/ppo --prompts test.jsonl
    """
    from rlhf_cli.tools.manner import read_manner

    manner = read_manner(settings or ())
    records = _prompts(prompt, prompts, limit)
    from rlhf_cli.tools import generate as tool  # torch, and seconds to import it

    width = shutil.get_terminal_size((80, 24)).columns
    kept = []
    for row in tool.answers(_speakers([one, other], manner.template), records, manner):
        kept += [answer.as_record() for answer in row]
        if row and not ctx.obj.as_json:
            write_out(tool.side_by_side(row, width) + "\n")
    if ctx.obj.as_json:
        ctx.obj.show("compare", {"answers": kept}, "")


def chat(
    models: Models,
    settings: Settings = None,
) -> None:
    """Talk with a model, or with several at once.

    Answers come word by word; Ctrl-C ends one, Ctrl-D the talk, /help lists the commands. A model trained on plain
    text continues each line by itself.

    \b
    Example:
      rlhf chat runs/sft runs/dpo
    """
    from rlhf_cli.tools.manner import read_manner

    manner = read_manner(settings or (), temperature=0.7, top_p=0.95, max_new_tokens=512)
    from rlhf_cli.tools.chat import Talk  # torch, and seconds to import it

    talk = Talk(_speakers(models, manner.template), manner, write_out)
    while (line := _read_line()) is not None and talk.take(line):
        pass


def _read_line() -> str | None:
    """Read what the user says, over several lines where they end in a backslash; None at the end."""
    lines: list[str] = []
    while not lines or lines[-1].endswith("\\"):
        if sys.stdin.isatty():
            sys.stderr.write("… " if lines else "> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return "\n".join(lines) if lines else None
        lines = [*(it.removesuffix("\\") for it in lines), line.rstrip("\n")]
        if not lines[-1].endswith("\\"):
            return "\n".join(lines)
    return None


def _prompts(texts: list[str] | None, path: str | None, limit: int | None) -> "list[Prompt]":
    """Take the prompts of the command line, or of a file, or of stdin."""
    from rlhf_cli.records import Prompt
    from rlhf_cli.tools.speaker import read_prompt_file

    if texts and path:
        raise UsageError("--prompt and --prompts exclude each other", fix="Give one of them.")
    if path:
        return read_prompt_file(path, limit)
    if not texts and sys.stdin.isatty():
        raise UsageError("there is no prompt", fix="Give --prompt TEXT or --prompts DATA, or pipe one in.")
    texts = texts or [sys.stdin.read().removesuffix("\n")]
    if not all(text.strip() for text in texts):
        raise MissingInputError("the prompt is empty", fix="Give --prompt TEXT or --prompts DATA.")
    return [Prompt(text, f"prompt {i}") for i, text in enumerate(texts, 1)]


def _speakers(models: list[str], template: "TemplateMode") -> "list[Speaker]":
    from rlhf_cli.tools.speaker import Speaker

    speakers = [Speaker.open(path, template) for path in models]
    for speaker in speakers:
        manner = "as a user's turn" if speaker.chat else "as plain text"
        sys.stderr.write(f"{speaker.name}: prompts go in {manner}\n")
    return speakers
