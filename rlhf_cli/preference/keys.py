"""Single keys and short lines from a terminal, without Enter for the keys and without votes by accident."""

import os
import re
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

_POLL_SECONDS = 0.1
_ESCAPE_SECONDS = 0.05  # the rest of an arrow key may come a moment after its ESC
_REPEAT_SECONDS = 0.25  # a key held down repeats faster than this

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]?|O.|.)?", re.DOTALL)  # ECMA-48: CSI, SS3, Alt-key
_END = {b"", b"\x04"}  # hung up, Ctrl-D


class Keys(Protocol):
    """Where answers are typed."""

    def opened(self) -> AbstractContextManager[None]:
        """Take keys inside the block; what was typed before it is forgotten."""

    def key(self) -> str | None:
        """Wait for a key; None when there will be none: end of input, or asked to stop."""

    def editing(self) -> AbstractContextManager[None]:
        """Take lines inside the block, which lies in one of `opened`."""

    def line(self) -> str | None:
        """Wait for a line, without its end; None as for `key`."""


class ScriptedKeys:
    """Plays prepared keys and, where a line is asked for, lines; then ends."""

    def __init__(self, *typed: str) -> None:
        self._typed = iter(typed)

    def opened(self) -> AbstractContextManager[None]:
        return nullcontext()

    def editing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def key(self) -> str | None:
        return next(self._typed, None)

    def line(self) -> str | None:
        return next(self._typed, None)


class TerminalKeys:
    """Reads the terminal at a file descriptor. Use inside `opened`."""

    def __init__(
        self, fd: int, stopped: Callable[[], bool], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fd = fd
        self._stopped = stopped
        self._clock = clock
        self._last = ("", float("-inf"))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take keys one by one, unseen; give the terminal back as it was."""
        before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSAFLUSH)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, before)

    def key(self) -> str | None:
        """Wait for one key. A key held down is pressed once, arrows and function keys are none."""
        while (typed := self._read()) is not None:
            if typed in _END:
                return None
            typed = _ESCAPES.sub(b"", typed + self._rest_of_escape(typed))
            # Keys that arrive together were pressed without a look at what the first one did.
            if typed and not self._is_held(key := typed.decode(errors="replace")[0]):
                return key
        return None

    def _is_held(self, key: str) -> bool:
        (last, then), now = self._last, self._clock()
        self._last = (key, now)
        return key == last and now - then < _REPEAT_SECONDS

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Let a line be typed and corrected, visibly."""
        cbreak = termios.tcgetattr(self._fd)
        editing = termios.tcgetattr(self._fd)
        editing[0] |= termios.ICRNL
        editing[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(self._fd, termios.TCSANOW, editing)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, cbreak)

    def line(self) -> str | None:
        """Wait for a whole line."""
        typed = self._read()
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

    def _rest_of_escape(self, typed: bytes) -> bytes:
        if typed != b"\x1b" or not select.select([self._fd], [], [], _ESCAPE_SECONDS)[0]:
            return b""
        return os.read(self._fd, 4096)
