"""The stop flag under real signals."""

import os
import signal
import threading

import pytest

from rlhf_cli.run.signals import STOP_SIGNALS, StopFlag


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_only_sets_the_flag(number):
    with StopFlag().installed() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested


def test_the_second_interrupt_raises_but_a_second_term_does_not():
    with StopFlag().installed():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_while_a_person_is_asked_the_first_signal_raises():
    with StopFlag().installed() as stop:
        with stop.interrupting(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_put_back_and_threads_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with StopFlag().installed():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def in_thread():
        with StopFlag().installed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen == [before]
