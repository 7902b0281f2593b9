"""Turn the signals of people and schedulers into a flag that a run polls between steps."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_NOTICE = b"\nstopping at the next safe point; Ctrl-C again quits at once, back to the last checkpoint\n"


class StopFlag:
    """Set by the first TERM, INT, USR1 or USR2; a second INT raises KeyboardInterrupt, a third kills."""

    def __init__(self) -> None:
        self.requested = False
        self._num_interrupts = 0
        self._raises = False

    @contextmanager
    def installed(self) -> Iterator["StopFlag"]:
        """Listen inside the block; outside the main thread, where Python forbids handlers, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside the block, the first signal already raises KeyboardInterrupt: for waits on a person."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._num_interrupts += number == signal.SIGINT
        if self._num_interrupts > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            os.write(2, _NOTICE)  # sys.stderr may be in the middle of a write of its own
        if self._raises:
            raise KeyboardInterrupt
