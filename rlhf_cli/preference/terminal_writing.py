"""A person who writes answers at a terminal: reads the prompt, writes in their own editor, saves with one key."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text as Styled

from rlhf_cli.errors import UsageError
from rlhf_cli.preference.editor import CommandEditor, Editor, find_editor
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.keys import Keys, TerminalKeys
from rlhf_cli.preference.labeler import Stop, Undo
from rlhf_cli.preference.terminal import content_view, turn_view
from rlhf_cli.preference.writing import Assignment, Writing, WritingDesk
from rlhf_cli.records import Message

_COMMANDS = {
    "e": "write or change the answer in your editor",
    "y": "save the answer as it is shown",
    "s": "skip: you cannot answer this",
    "u": "take the last answer back",
    "?": "show these keys",
    "q": "quit; every answer is saved already",
}
_KEYS = "e write   y save   s skip   u undo   ? help   q quit"


def open_terminal_writer(name: str, drafts: Path, *, stopped: Callable[[], bool]) -> "TerminalWriter":
    """Give a writer on standard input and error; texts lie in `drafts` until they are stored.

    Raises UsageError where no person can see the prompt, or there is no editor.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "labeler.kind is terminal, and there is no terminal",
            where="labeler.kind",
            fix="run it in a terminal, or set labeler to {kind: web}",
        )
    editor = CommandEditor(find_editor(), drafts)
    console = Console(stderr=True, highlight=False)
    return TerminalWriter(console, TerminalKeys(sys.stdin.fileno(), stopped), editor, name=name)


class TerminalWriter:
    """Asks the person at `keys` for answers, written in `editor`, and draws on `console`."""

    def __init__(self, console: Console, keys: Keys, editor: Editor, *, name: str) -> None:
        self.name = name
        self._console = console
        self._keys = keys
        self._editor = editor

    def answer(self, task: Assignment) -> Writing | Undo | Stop:
        """Return what the person wrote; Stop at `q`, at the end of input, or when asked to stop."""
        started, text = time.monotonic(), task.draft
        self._console.print(assignment_view(task))
        while (key := self._key()) is not None and key != "q":
            match key:
                case "e":
                    text = self._edit(task, text)
                case "y" if text.strip():
                    self._say("saved")
                    return Writing(task.prompt_id, self.name, "written", text, _since(started))
                case "y":
                    self._say("there is nothing to save: press e to write")
                case "s":
                    self._say("skipped")
                    return Writing(task.prompt_id, self.name, "skip", seconds=_since(started))
                case "u" if task.number > 1:
                    self._say("undo")
                    return Undo()
                case "u":
                    self._say("there is no answer to undo")
                case _:
                    self._console.print(_help_view())
        return Stop()

    def stored(self, task: Assignment) -> None:
        """Hear that the answer to `task` is on disk."""
        self._editor.forget(_name_of(task))

    def _key(self) -> str | None:
        with self._keys.opened():
            key = self._keys.key()
        return key.lower() if key else None

    def _edit(self, task: Assignment, text: str) -> str:
        written = self._editor.edit(_name_of(task), text, _as_text(task))
        self._console.print(_answer_view(written))
        self._console.print(_keys_view())
        return written

    def _say(self, text: str) -> None:
        self._console.print(Styled(f"  {text}", style="green"))


def ask_writer(desk: WritingDesk, writer: TerminalWriter) -> Iterator[int]:
    """Yield the number of settled prompts each time it has changed, until there is none for this person.

    Ends sooner when the person stops. What was yielded is on disk.
    """
    while (task := desk.next(writer.name)) is not None:
        match writer.answer(task):
            case Stop():
                desk.release(writer.name)
                return
            case Undo():
                desk.undo(writer.name, key=uuid4().hex)
            case writing:
                desk.write(writing, key=uuid4().hex)
                writer.stored(task)
        yield desk.progress(writer.name).done


def assignment_view(task: Assignment) -> RenderableType:
    """Lay a prompt out with the draft to start from, if there is one."""
    title = Styled(f"{task.number} of {task.total}", style="bold")
    turns = [turn_view(turn) for turn in _turns(task)]
    draft = [_answer_view(task.draft, "draft")] if task.draft else []
    return Group(Styled(), Rule(title), *turns, *draft, _keys_view())


def _answer_view(text: str, title: str = "your answer") -> RenderableType:
    return Panel(content_view(text, empty="(nothing yet)"), title=title, title_align="left")


def _keys_view() -> RenderableType:
    keys = Styled(_KEYS, style="dim")
    keys.highlight_regex(r"(?<!\S)\S(?=\s)", "bold not dim")
    return keys


def _help_view() -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for key, meaning in _COMMANDS.items():
        table.add_row(Styled(f"  {key}", style="bold"), Styled(meaning))
    return table


def _turns(task: Assignment) -> tuple[Message, ...]:
    return (Message("prompt", task.prompt),) if isinstance(task.prompt, str) else task.prompt


def _as_text(task: Assignment) -> str:
    """Write the prompt out for an editor, which gets harmless text too."""
    return "\n\n".join(f"{inert(turn.role)}:\n{inert(turn.content)}" for turn in _turns(task))


def _name_of(task: Assignment) -> str:
    return f"prompt-{task.prompt_id}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
