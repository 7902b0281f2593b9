"""The stop flag under real signals."""

import os
import signal
import threading

import pytest

from rlhf_cli.run.signals import STOP_SIGNALS, StopFlag, Stopped


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


def test_where_nothing_is_in_flight_the_first_signal_raises():
    with StopFlag().installed() as stop, stop.immediate():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)  # it is stopping already


def import_lazily(number: int) -> None:
    """Fail as a library does that wraps whatever goes wrong in an import of its own."""
    try:
        os.kill(os.getpid(), number)
    except Stopped as error:  # or all there is, as libraries do
        raise ModuleNotFoundError("Could not import module") from error


def test_a_library_that_wraps_the_exception_of_a_signal_does_not_hide_it():
    with StopFlag().installed() as stop, pytest.raises(Stopped), stop.immediate():
        import_lazily(signal.SIGTERM)


def test_an_error_of_its_own_stays_what_it_is_where_a_signal_was_only_noted():
    def fail_after_a_signal(stop: StopFlag) -> None:
        with stop.deferred():
            import_lazily(signal.SIGTERM)
        raise ModuleNotFoundError("this one is real")

    with StopFlag().installed() as stop, pytest.raises(ModuleNotFoundError), stop.immediate():
        fail_after_a_signal(stop)


def test_work_that_saves_itself_is_not_torn_away_from():
    with StopFlag().installed() as stop, stop.immediate():
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
        with pytest.raises(Stopped), stop.immediate():
            pytest.fail("a signal that came before is forgotten")
        with pytest.raises(Stopped):
            stop.check()


def test_the_second_interrupt_raises_while_it_is_stopping():
    with StopFlag().installed() as stop, stop.immediate():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_the_parent_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag().installed() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_worker_leaves_signals_to_its_parent():
    with StopFlag().installed() as stop, stop.immediate():
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(int(stop.requested))
        assert os.waitpid(worker, 0)[1] == 0


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
