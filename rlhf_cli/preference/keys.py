"""Single keys and short lines from a terminal, without Enter for the keys and without votes by accident."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_POLL_SECONDS = 0.1
_ESCAPE_SECONDS = 0.05  # the rest of an arrow key may come a moment after its ESC
_REPEAT_SECONDS = 0.25  # a key held down repeats faster than this

_END = {b"", b"\x04"}  # hung up, Ctrl-D


class Keys(Protocol):
    """Where answers are typed."""

    def discard(self) -> None:
        """Forget what was typed before the question was on the screen."""

    def key(self) -> str | None:
        """Wait for a key; None when there will be none: end of input, or asked to stop."""

    def line(self) -> str | None:
        """Wait for a line, without its end; None as for `key`."""


class ScriptedKeys:
    """Plays prepared keys and, where a line is asked for, lines; then ends."""

    def __init__(self, *typed: str) -> None:
        self._typed = iter(typed)

    def discard(self) -> None:
        pass

    def key(self) -> str | None:
        return next(self._typed, None)

    def line(self) -> str | None:
        return next(self._typed, None)


class TerminalKeys:
    """Reads standard input. Use inside `opened`."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._fd = sys.stdin.fileno()
        self._stopped = stopped
        self._last = ("", float("-inf"))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take keys one by one, unseen; give the terminal back as it was."""
        before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, before)

    def discard(self) -> None:
        termios.tcflush(self._fd, termios.TCIFLUSH)

    def key(self) -> str | None:
        """Wait for one key; a key held down, an arrow or a function key is none."""
        while (typed := self._read()) is not None:
            if typed in _END:
                return None
            if typed[:1] == b"\x1b":
                self._drop_escape()
                continue
            key, now = typed.decode(errors="replace")[0], time.monotonic()
            held = key == self._last[0] and now - self._last[1] < _REPEAT_SECONDS
            self._last = (key, now)
            if not held:
                return key
        return None

    def line(self) -> str | None:
        """Let a line be typed and edited, visibly."""
        cbreak = termios.tcgetattr(self._fd)
        editing = termios.tcgetattr(self._fd)
        editing[0] |= termios.ICRNL
        editing[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(self._fd, termios.TCSANOW, editing)
        try:
            typed = self._read()
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, cbreak)
        return None if typed is None or typed == b"" else typed.decode(errors="replace").strip()

    def _read(self) -> bytes | None:
        """Wait for input; look up now and then, because signals only set a flag."""
        try:
            while not self._stopped():
                if select.select([self._fd], [], [], _POLL_SECONDS)[0]:
                    return os.read(self._fd, 4096)
        except OSError:  # the terminal is gone
            return None
        return None

    def _drop_escape(self) -> None:
        if select.select([self._fd], [], [], _ESCAPE_SECONDS)[0]:
            os.read(self._fd, 4096)
