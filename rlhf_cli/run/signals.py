"""Turn the signals of people and schedulers into a flag to be polled, or an exception where a run may stop at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_NOTICE = b"\nstopping at the next safe point; Ctrl-C again quits at once, back to the last checkpoint\n"


class Stopped(BaseException):
    """Raised by a signal where nothing in flight is worth saving. No `except Exception` of a library hides it."""


class StopFlag:
    """Set by the first signal; a second INT raises KeyboardInterrupt, a third kills."""

    def __init__(self) -> None:
        self.requested = False
        self._num_interrupts = 0
        self._raises = self._has_raised = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    @contextmanager
    def installed(self) -> Iterator["StopFlag"]:
        """Listen inside the block; outside the main thread, where Python forbids handlers, do nothing.

        A signal that the parent has ignored, as `nohup` does with HUP, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._receive) for number in heard}
        try:
            yield self
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def deafen(self) -> None:
        """Ignore every signal from here on: the outcome is on disk, and Python shuts down in its own time."""
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)
        self._previous = {}

    def check(self) -> None:
        """Raise Stopped if a stop was asked for."""
        if self.requested:
            raise Stopped

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside the block the first signal raises Stopped, wherever the program is; one before it, at once.

        Libraries that import lazily turn what comes up in an import into an ImportError of their own: whatever
        leaves the block after Stopped was raised in it leaves it as Stopped.
        """
        with self._mode(raises=True):
            self.check()
            try:
                yield
            except Exception as error:
                if self._has_raised:
                    raise Stopped from error
                raise

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block signals only set the flag: what runs there polls it, and saves before it stops."""
        with self._mode(raises=False):
            yield

    @contextmanager
    def _mode(self, *, raises: bool) -> Iterator[None]:
        before, self._raises = self._raises, raises
        try:
            yield
        finally:
            self._raises = before

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker: signals often go to the whole group, and its parent will end it
        self._num_interrupts += number == signal.SIGINT
        if self._num_interrupts > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        first, self.requested = not self.requested, True
        if first:
            with suppress(OSError):  # the terminal may be gone
                os.write(2, _NOTICE)  # sys.stderr may be in the middle of a write of its own
            if self._raises:
                self._has_raised = True
                raise Stopped
