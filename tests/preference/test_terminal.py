"""What a person sees and presses: verdicts, layout, hostile text, and a session in a real pseudo-terminal."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_store import MakeStore

from rlhf_cli.errors import UsageError
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.keys import ScriptedKeys, TerminalKeys
from rlhf_cli.preference.labeler import Question, Stop, Undo, Verdict
from rlhf_cli.preference.store import Store, Vote
from rlhf_cli.preference.terminal import TerminalLabeler, help_view, open_terminal
from rlhf_cli.records import Message, Text

CODE = "def f(x):\n    if x:\n        return 1"
HOSTILE = [
    "\x1b[2J\x1b[1;1Hcleared",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07 clipboard",
    "\x9b31mC1 introducer\x9c",
    "safe\rDANGER",
    "back\x08\x08\x08\x08 space, bell\x07, delete\x7f, nul\x00",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200fmark \u061c",
    "zero\u200bwidth \ufeffbom \u00adsoft \u2060joiner \U000e0041tag",
    "line\u2028separator paragraph\u2029",
    "[bold red]markup[/bold red] [link=http://evil.example]x[/link] [/] [",
    ":smile: :boom:",
    "lone \ud800 surrogate, private \ue000",
]


def screen(width: int = 120) -> Console:
    return Console(
        file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False, emoji=False
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ask(*typed: str, number: int = 1, width: int = 120, **texts: Text) -> tuple[object, str]:
    parts = {"prompt": "Why?", "first": "Because.", "second": "No idea.", **texts}
    question = Question(pair_id=1, number=number, total=9, **parts)  # type: ignore[arg-type]
    console = screen(width)
    return TerminalLabeler(console, ScriptedKeys(*typed), name="ana").label(question), shown(console)


@pytest.mark.parametrize(
    ("key", "winner"),
    [("a", "first"), ("b", "second"), ("t", "tie"), ("x", "both_bad"), ("s", "skip"), ("A", "first")],
)
def test_one_key_is_one_verdict(key: str, winner: str):
    verdict, _ = ask(key)
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.reason) == (winner, "")
    assert 0 <= verdict.seconds < 5


def test_a_reason_goes_with_the_verdict_that_follows():
    verdict, text = ask("r", "too long", "r", "too long, and wrong", "b")
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.reason) == ("second", "too long, and wrong")
    assert "now vote" in text


def test_quitting_and_the_end_of_input_stop():
    for typed in (["q"], [], ["r"], ["z", "q"]):
        assert ask(*typed)[0] == Stop()


def test_undo_needs_a_vote():
    assert ask("u", number=2)[0] == Undo()
    verdict, text = ask("u", "t", number=1)
    assert isinstance(verdict, Verdict)
    assert "no vote to undo" in text


def test_unknown_keys_show_the_keys_and_vote_nothing():
    verdict, text = ask("?", "1", "\n", "ж", "x")
    assert isinstance(verdict, Verdict)
    assert verdict.winner == "both_bad"
    assert text.count("both are bad") == 5  # four lists of keys, and the verdict
    console = screen()
    console.print(help_view())
    assert {line.split()[0] for line in shown(console).splitlines()} == set("abtxsur?q")


def test_answers_stand_side_by_side_when_there_is_room():
    wide = ask(first=CODE, second="No idea.")[1].splitlines()
    assert any("def f(x):" in line and "No idea." in line for line in wide)
    narrow = ask(first=CODE, second="No idea.", width=60)[1].splitlines()
    assert not any("def f(x):" in line and "No idea." in line for line in narrow)
    for lines in (wide, narrow):
        column = next(line.index("def f") for line in lines if "def f" in line)
        assert next(line.index("if x:") for line in lines if "if x:" in line) == column + 4
        assert next(line.index("return") for line in lines if "return" in line) == column + 8


@pytest.mark.parametrize("width", [20, 60, 120])
def test_nothing_is_lost_or_runs_over_the_edge(width: int):
    long_word, sentence = "z" * 500, "word " * 100
    text = ask(prompt=sentence, first=long_word, second=sentence, width=width)[1]
    assert max(len(line) for line in text.splitlines() if "better" not in line) <= width
    assert text.count("z") == 500
    assert len(re.findall(r"word", text)) >= 190


def test_conversations_show_who_spoke():
    dialog = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yo"),
        Message("user", "Go on"),
    )
    lines = [line.strip() for line in ask("q", prompt=dialog)[1].splitlines()]
    order = [lines.index(word) for word in ("system", "Be brief.", "user", "Hi", "assistant", "Yo", "Go on")]
    assert order == sorted(order)


def test_an_empty_answer_says_so():
    assert "(empty answer)" in ask(first=" \n")[1]


def test_the_question_is_blind_and_counted():
    text = ask(number=4)[1]
    assert "4 of 9" in text
    assert "model" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("width", [60, 120])
def test_hostile_text_is_inert_and_visible(hostile: str, width: int):
    dialog = (Message("user", hostile),)
    for texts in ({"prompt": hostile}, {"prompt": dialog}, {"first": hostile}, {"second": hostile}):
        _, text = ask(width=width, **texts)
        dangerous = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}} - {
            "\n"
        }
        assert not dangerous


def test_control_characters_have_symbols():
    assert inert("a\x1b[0m\x00\x7f\x9b\u202e\r\nb\tc\r") == "a␛[0m␀␡⟨009B⟩⟨202E⟩\nb    c␍"
    kept = "Grüße, 你好 👩\u200d👩\u200d👧 می\u200cخواهم [b] *md* `x`\n  indented"
    assert inert(kept) == kept


@given(st.text())
def test_inert_text_is_inert_for_good(text: str):
    once = inert(text)
    assert inert(once) == once
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in once)


def test_no_terminal_is_refused_with_a_way_out():
    with pytest.raises(UsageError, match="no terminal") as caught:
        open_terminal("ana", stopped=lambda: False)
    assert "rlhf_cli.preference.rules:longer" in (caught.value.fix or "")


CHILD = """
import sys
from pathlib import Path
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.terminal import open_terminal
from rlhf_cli.preference.voting import collect_votes
from rlhf_cli.run.signals import StopFlag

with Store(Path(sys.argv[1])) as store, StopFlag().installed() as stop:
    stopped = lambda: stop.requested
    for _ in collect_votes(store, open_terminal("ana", stopped=stopped)):
        pass
    sys.stderr.write(f"{store.num_votes()} saved, {len(store.undecided())} left")
"""


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
                self.output += os.read(self.master, 65536).decode(errors="replace")
        self.output = self.output.partition(words)[2]

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session(make_store: MakeStore):
    opened = Session(make_store(5).path)
    try:
        opened.expect("1 of 5")
        opened.expect("q quit")
        yield opened
    finally:
        opened.close()


def votes(make_store_path: Path) -> list[Vote]:
    with Store(make_store_path) as store:
        return [Vote(v.pair_id, v.winner, v.labeler, v.reason) for v in store.votes()]


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
    # Pair 1 shows response 2 first, pair 2 response 1.
    assert votes(tmp_path / "collect.db") == [Vote(1, "2", "ana"), Vote(2, "2", "ana")]
    with Store(tmp_path / "collect.db") as store:
        reasons = store._db.execute("SELECT reason FROM judgements WHERE winner = 'tie'").fetchall()
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
    assert votes(tmp_path / "collect.db") == [Vote(1, "both_bad", "ana")]
