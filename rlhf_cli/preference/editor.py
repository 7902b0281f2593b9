"""A person's own editor on a file that stays until its text is stored: a crash loses nothing that was saved."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rlhf_cli.errors import UsageError
from rlhf_cli.run.directory import write_atomic

SCISSORS = "------------------------ >8 ------------------------"
_USUAL = ("editor", "nano", "vi", "vim")


class Editor(Protocol):
    """Lets a person change a text."""

    def edit(self, name: str, draft: str, shown: str) -> str:
        """Return the new text; `name` tells texts apart, `shown` is what the text answers."""

    def forget(self, name: str) -> None:
        """Give up the copy that was kept of a text: it is stored now."""


class ScriptedEditor:
    """Writes prepared texts; keeps the drafts it was given."""

    def __init__(self, *texts: str) -> None:
        self._texts = iter(texts)
        self.drafts: list[str] = []

    def edit(self, name: str, draft: str, shown: str) -> str:
        self.drafts.append(draft)
        return next(self._texts)

    def forget(self, name: str) -> None:
        pass


class CommandEditor:
    """Runs an editor on files in `folder`, where a text lies until it is stored."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = tuple(command)
        self._folder = folder

    def edit(self, name: str, draft: str, shown: str) -> str:
        """Return the text above the scissors line; what an earlier sitting left unsaved is the draft.

        Raises UsageError when the editor fails; its file stays.
        """
        path = self._path(name)
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            write_atomic(path, f"{draft}\n{SCISSORS}\nWrite above this line. The prompt was:\n\n{shown}\n")
        with _left_to_the_editor():
            try:
                code = subprocess.run([*self._command, str(path)], check=False).returncode
            except OSError as error:
                raise UsageError(str(error), where="EDITOR", fix="set EDITOR to an editor") from error
        if code:
            raise UsageError(
                f"{shlex.join(self._command)} ended with exit code {code}",
                where="EDITOR",
                fix=f"run the same command again; the text is in {path}",
            )
        text = path.read_text(encoding="utf-8", errors="replace")
        return text.partition(SCISSORS)[0].rstrip()

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.md"


def find_editor() -> list[str]:
    """Return the command of VISUAL, of EDITOR, or a usual one. Raises UsageError where there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named and (words := shlex.split(named)):
        return words
    found = next(filter(None, map(shutil.which, _USUAL)), None)
    if found is None:
        raise UsageError(
            "there is no editor to write in",
            where="EDITOR",
            fix="set EDITOR to an editor, such as nano, or use labeler.kind web",
        )
    return [found]


@contextmanager
def _left_to_the_editor() -> Iterator[None]:
    """Leave Ctrl-C to the editor. A handler of our own is reset in the child; SIG_IGN would be inherited."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
