"""A person's session in a real pseudo-terminal: keys, Ctrl-C, hang-up; nothing is lost, the terminal comes back."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_store import MakeStore

from rlhf_cli.preference.keys import TerminalKeys
from rlhf_cli.preference.labeler import blind
from rlhf_cli.preference.store import Store

CHILD = """
import sys
from pathlib import Path
from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.terminal import open_terminal
from rlhf_cli.preference.voting import ask_person
from rlhf_cli.run.signals import StopFlag

with (
    Store(Path(sys.argv[1])) as store,
    StopFlag().installed() as stop,
    Desk(store, votes_per_pair=1, overlap_fraction=0, seed=0) as desk,
):
    for _ in ask_person(desk, open_terminal("ana", tags=["clear"], stopped=lambda: stop.requested)):
        pass
    progress = desk.progress("ana")
    sys.stderr.write(f"{progress.done} saved, {progress.total - progress.done} left")
"""


STYLE = re.compile(r"\x1b\[[0-9;]*m")  # a letter of the keys is bold, the rest is not


class Session:
    """A child in a pseudo-terminal of its own, so that Ctrl-C and hang-ups are real."""

    def __init__(self, db: Path) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(db)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.slave = slave
        self.output = ""

    def expect(self, words: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.output:
            assert time.monotonic() < deadline, f"no {words!r} in {self.output!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += STYLE.sub("", os.read(self.master, 65536).decode(errors="replace"))
        self.output = self.output.partition(words)[2]

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session(make_store: MakeStore) -> Iterator[Session]:
    opened = Session(make_store(5).path)
    try:
        opened.expect("1 of 5")
        opened.expect("q quit")
        yield opened
    finally:
        opened.close()


def verdicts(db: Path) -> list[tuple[int, str]]:
    """Return pair and verdict, as it was pressed."""
    with Store(db) as store:
        return [(vote.pair_id, blind(vote.winner, vote.first)) for vote in store.votes()]


def test_a_session_at_a_terminal(session: Session, tmp_path: Path):
    session.press("\x1b[A\x1bOB\x1b[1;5A\x1b[3~")  # arrow keys end in A and B, and are no votes
    session.press("a")
    session.expect("2 of 5")
    session.expect("q quit")
    session.press("r")
    session.expect("reason: ")
    session.press("très long\n")
    session.expect("reason noted")
    session.press("t")
    session.expect("3 of 5")
    session.expect("q quit")
    session.press("u")
    session.expect("2 of 5")
    session.expect("q quit")
    session.press("b")
    session.expect("3 of 5")
    session.expect("q quit")
    session.press("q")
    session.expect("2 saved, 3 left")
    assert session.child.wait(10) == 0
    assert verdicts(tmp_path / "collect.db") == [(1, "first"), (2, "second")]
    with Store(tmp_path / "collect.db") as store:
        reasons = store.rows("SELECT reason FROM judgements WHERE winner = 'tie'")
    assert [row["reason"] for row in reasons] == ["très long"]
    assert termios.tcgetattr(session.slave) == session.before


def test_a_key_held_down_is_pressed_once():
    master, slave = pty.openpty()
    typed, times = iter("aaaaab"), iter([0.0, 0.2, 0.4, 0.6, 0.9, 1.0])

    def type_one() -> bool:  # asked before each read
        os.write(master, next(typed).encode())
        return False

    keys = TerminalKeys(slave, type_one, clock=lambda: next(times))
    with keys.opened():
        pressed = [keys.key(), keys.key(), keys.key()]
    os.close(master)
    os.close(slave)
    assert pressed == ["a", "a", "b"]
    assert list(times) == []


@pytest.mark.parametrize("interruption", ["\x03", "\x04", signal.SIGTERM, "hang up", "reason, then Ctrl-C"])
def test_no_interruption_loses_a_vote(session: Session, tmp_path: Path, interruption: object):
    session.press("x")
    session.expect("2 of 5")
    session.expect("q quit")
    if interruption == "hang up":
        os.close(session.master)
        session.master = os.open(os.devnull, os.O_RDONLY)
        session.child.wait(10)
    else:
        if interruption == "reason, then Ctrl-C":
            session.press("r")
            session.expect("reason: ")
            session.press("half a rea")
            session.expect("half a rea")
            session.press("\x03")
        elif isinstance(interruption, str):
            session.press(interruption)
        else:
            session.child.send_signal(signal.SIGTERM)
        session.expect("1 saved, 4 left")
        assert session.child.wait(10) == 0
        assert termios.tcgetattr(session.slave) == session.before
    assert verdicts(tmp_path / "collect.db") == [(1, "both_bad")]
