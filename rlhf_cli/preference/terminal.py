"""A person at a terminal: shows the prompt and two answers, takes one key for a verdict."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text as Styled

from rlhf_cli.errors import UsageError
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.keys import Keys, TerminalKeys
from rlhf_cli.preference.labeler import Choice, Question, Stop, Undo, Verdict
from rlhf_cli.records import Message

_CODE = re.compile(r"^[ ]{0,3}```.*?(?:^[ ]{0,3}```[ ]*$|\Z)|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_WIDE = 100  # columns from which the answers stand side by side

_CHOICES: dict[str, tuple[Choice, str]] = {
    "a": ("first", "A is better"),
    "b": ("second", "B is better"),
    "t": ("tie", "a tie: equally good"),
    "x": ("both_bad", "both are bad"),
    "s": ("skip", "skip: cannot say"),
}
_EDITS = {"g", "r"}
_STRENGTHS = {"1": "slightly", "2": "clearly", "3": "much"}
_COMMANDS = {
    "1": "slightly better: press it before a or b",
    "2": "clearly better",
    "3": "much better",
    "g": "choose reasons from a list, then vote",
    "r": "write a reason, then vote",
    "u": "undo the last vote",
    "?": "show these keys",
    "q": "quit; every vote is saved already",
}
_KEYS = """a b better   1 2 3 how much   t tie   x both bad   s skip
u undo   g tags   r reason   ? help   q quit"""


def open_terminal(name: str, *, tags: Sequence[str], stopped: Callable[[], bool]) -> "TerminalLabeler":
    """Give a labeler on standard input and error; once `stopped` says yes, it stops.

    Raises UsageError where no person can see the question and press a key.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "labeler.kind is terminal, and there is no terminal",
            where="labeler.kind",
            fix="run it in a terminal, or set labeler to {kind: rule, function: rlhf_cli.preference.rules:longer}",
        )
    keys = TerminalKeys(sys.stdin.fileno(), stopped)
    return TerminalLabeler(Console(stderr=True, highlight=False), keys, name=name, tags=tags)


class TerminalLabeler:
    """Asks the person at `keys` about what it draws on `console`; `tags` are reasons to choose from."""

    def __init__(self, console: Console, keys: Keys, *, name: str, tags: Sequence[str] = ()) -> None:
        self.name = name
        self._console = console
        self._keys = keys
        self._tags = tuple(tags)

    def label(self, question: Question) -> Verdict | Undo | Stop:
        """Return the person's verdict; Stop at `q`, at the end of input, or when asked to stop."""
        with self._keys.opened():
            self._console.print(question_view(question, wide=self._console.width >= _WIDE))
            return self._await_verdict(question)

    def _await_verdict(self, question: Question) -> Verdict | Undo | Stop:
        started = time.monotonic()
        draft = Verdict("skip")
        while (key := self._keys.key()) is not None and (key := key.lower()) != "q":
            if key in _CHOICES:
                return self._decide(draft, key, time.monotonic() - started)
            if key == "u" and question.number > 1:
                self._say("undo")
                return Undo()
            if key in _EDITS or key in _STRENGTHS:
                changed = self._edit(draft, key)
                if changed is None:
                    return Stop()
                draft = changed
            elif key == "u":
                self._say("there is no vote to undo")
            else:
                self._console.print(help_view())
        return Stop()

    def _decide(self, draft: Verdict, key: str, seconds: float) -> Verdict:
        choice, meaning = _CHOICES[key]
        strength = draft.strength if choice in ("first", "second") else 0
        self._say(meaning.replace(" is ", f" is {_STRENGTHS[str(strength)]} ") if strength else meaning)
        return replace(draft, winner=choice, strength=strength, seconds=round(seconds, 3))

    def _edit(self, draft: Verdict, key: str) -> Verdict | None:
        """Add to a verdict what comes before its key; None at the end of input."""
        if key in _STRENGTHS:
            strength = 0 if draft.strength == int(key) else int(key)
            self._say(f"{_STRENGTHS[key]} better: now a or b" if strength else "no strength")
            return replace(draft, strength=strength)
        typed = self._ask("reason: " if key == "r" else self._list_of_tags())
        if typed is None:
            return None
        if key == "r":
            self._say("reason noted; now vote" if typed else "no reason")
            return replace(draft, reason=typed)
        tags = tuple(tag for i, tag in enumerate(self._tags, 1) if str(i) in re.findall(r"\d+", typed))
        self._say(f"{', '.join(tags)}; now vote" if tags else "no tags")
        return replace(draft, tags=tags)

    def _list_of_tags(self) -> str:
        return "  ".join(f"{i} {inert(tag)}" for i, tag in enumerate(self._tags, 1)) + "\nnumbers: "

    def _ask(self, words: str) -> str | None:
        with self._keys.editing():
            self._console.print(Styled(words, style="bold"), end="")
            return self._keys.line()

    def _say(self, text: str) -> None:
        self._console.print(Styled(f"  {text}", style="green"))


def question_view(question: Question, *, wide: bool) -> RenderableType:
    """Lay one question out: progress, conversation, both answers, keys."""
    title = Styled(f"{question.number} of {question.total}", style="bold")
    prompt = question.prompt
    turns = (Message("prompt", prompt),) if isinstance(prompt, str) else prompt
    answers = _side_by_side(question) if wide else _stacked(question)
    keys = Styled(_KEYS, style="dim")
    keys.highlight_regex(r"(?<!\S)\S(?=\s)", "bold not dim")
    return Group(Styled(), Rule(title), *(turn_view(turn) for turn in turns), answers, keys)


def help_view() -> RenderableType:
    """List every key with its meaning."""
    table = Table.grid(padding=(0, 2))
    for key, meaning in [*((k, m) for k, (_, m) in _CHOICES.items()), *_COMMANDS.items()]:
        table.add_row(Styled(f"  {key}", style="bold"), Styled(meaning))
    return table


def turn_view(message: Message) -> RenderableType:
    """Show who says what."""
    role = Styled(inert(message.role), style="bold blue" if message.role == "user" else "bold magenta")
    return Group(role, Padding(content_view(message.content, empty="(empty)"), (0, 0, 1, 2)))


def _side_by_side(question: Question) -> RenderableType:
    table = Table(box=box.ROUNDED, expand=True, header_style="bold")
    for title in _titles(question):
        table.add_column(title, ratio=1, overflow="fold")
    table.add_row(*(content_view(answer) for answer in (question.first, question.second)))
    return table


def _stacked(question: Question) -> RenderableType:
    answers = zip(_titles(question), (question.first, question.second), strict=True)
    return Group(*(Panel(content_view(text), title=title, title_align="left") for title, text in answers))


def _titles(question: Question) -> list[str]:
    """Name the answers; whoever judges a broken-off answer should know that the limit broke it off."""
    return [
        f"{label} (cut off: too long)" if cut else label
        for label, cut in zip("AB", question.cut, strict=True)
    ]


def content_view(text: str, empty: str = "(empty answer)") -> Styled:
    """Show `text` as it stands: no markup, no reflow, long lines folded."""
    if not text.strip():
        return Styled(empty, style="dim italic")
    content = Styled(inert(text), overflow="fold")
    content.highlight_regex(_CODE, "cyan")
    return content
