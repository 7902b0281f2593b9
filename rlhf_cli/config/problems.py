"""Problems of a configuration: where each one is, and the text a person reads."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_cli.errors import ConfigError

KeyPath = tuple[str | int, ...]

SHOWN_WIDTH = 120


class Spot(NamedTuple):
    """A place in a file or in the text of one `--set`; line and column count from 1, 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0
    source: str = ""


@dataclass(frozen=True)
class Problem:
    """One mistake: its place, the dotted key, what is wrong, and what to do about it."""

    spot: Spot
    key: str
    message: str
    help: str = ""

    @property
    def where(self) -> str:
        """`file:line:column`, or the file alone, or `--set`."""
        file, line, column, _ = self.spot
        return printable(f"{file}:{line}:{column}" if line else file)

    @property
    def source(self) -> str:
        """The line the mistake is on, or the whole `--set`; empty when the file as a whole is meant."""
        return self.spot.source

    def __str__(self) -> str:
        head = f"{self.where}: error: " + (f"{self.key}: " if self.key else "") + self.message
        lines = [head]
        if self.spot.column:
            shown, caret = _window(self.source, self.spot.column)
            number = str(self.spot.line or "")
            lines += [f"{number:>6} | {shown}", f"{'':>6} | {caret}"]
        if self.help:
            lines.append(f"{'':>6} = help: {self.help}")
        return "\n".join(lines)


class ConfigProblems(ConfigError):
    """A configuration that cannot be used, with every problem found in it, in the order they are shown."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        message = f"{first.key}: {first.message}" if first.key else first.message
        super().__init__(message, where=first.where, fix=first.help or None)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def problem(spot: Spot, message: str, *, key: KeyPath | str = "", help: str = "") -> Problem:
    """Build the record of one mistake at `spot`."""
    name = key if isinstance(key, str) else dotted(key)
    return Problem(spot, printable(name), printable(message), printable(help))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by file, line and column, the command line last; of several at one place keep the first."""
    first: dict[tuple[Spot, str], Problem] = {}
    for found in problems:
        first.setdefault((found.spot, "" if found.spot.column else found.key), found)
    return sorted(first.values(), key=lambda found: _reading_order(found.spot))


def dotted(path: KeyPath) -> str:
    """Join a path into a key as `--set` takes it: ("data", "train", 0) is data.train.0."""
    return ".".join(str(part) for part in path)


def printable(text: str) -> str:
    """Replace characters that would break or disguise a line of output."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _reading_order(spot: Spot) -> tuple[bool, str, int, int]:
    is_option = spot.file.startswith("--")
    return (True, "", 0, 0) if is_option else (False, spot.file, spot.line, spot.column)


def _window(source: str, column: int) -> tuple[str, str]:
    """Cut a long line around the column; return it with the line that holds the caret."""
    start = max(0, column - 1 - SHOWN_WIDTH // 2) if len(source) > SHOWN_WIDTH else 0
    text = printable(source.rstrip().replace("\t", " "))[start : start + SHOWN_WIDTH]
    before = text[: column - 1 - start].ljust(column - 1 - start)
    width = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in before)
    return text, " " * width + "^"
