"""Plain progress lines, and the choice between them and the live bar."""

import io
import sys

from rlhf_cli.run.pace import Recent
from rlhf_cli.run.progress import PlainBar, open_progress
from rlhf_cli.run.usage import memory_words, resident_bytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_come_every_30_seconds_with_an_eta():
    now = [0.0]
    said = []
    bar = PlainBar("sft", 100, start=20, say=said.append, clock=lambda: now[0], memory=str)
    for step in range(21, 61):
        now[0] += 3.0
        bar.update(step, {"loss": 100.0 / step, "lr": 1e-5} if step % 10 == 0 else None)
    bar.close()
    assert said == [
        "stage=sft step=21 total=100 eta=0:03:57",
        "stage=sft step=31 total=100 eta=0:03:27 loss=3.333 lr=1e-05",
        "stage=sft step=41 total=100 eta=0:02:57 loss=2.5 lr=1e-05",
        "stage=sft step=51 total=100 eta=0:02:27 loss=2 lr=1e-05",
        "stage=sft step=60 total=100 eta=0:02:00 loss=1.667 lr=1e-05",
    ]


def test_a_line_has_the_metrics_of_its_stage_speed_and_memory():
    now = [0.0]
    said = []
    bar = PlainBar("ppo", 8, start=2, say=said.append, clock=lambda: now[0], memory=lambda: "memory=1GB")
    now[0] = 4.0
    metrics = {"loss": 9.0, "reward": 0.5, "kl": 1.25, "length": 20.0, "entropy": 0.75, "tokens": 300.0}
    bar.update(4, metrics)  # 2 steps of 300 tokens in 4 s
    assert said == [
        "stage=ppo step=4 total=8 eta=0:00:08 reward=0.5 kl=1.25 length=20 entropy=0.75"
        " tokens_per_second=150 memory=1GB"
    ]


def test_the_sparkline_runs_from_the_lowest_to_the_highest_value():
    recent = Recent("ppo")
    assert recent.sparkline() == ""
    for reward in (0.0, 7.0, float("nan"), 3.0, 1.0):
        recent.note({"reward": reward})
    assert recent.sparkline() == "▁█▄▂"
    for _ in range(40):
        recent.note({"reward": 5.0})
    assert recent.sparkline() == "▁" * 20


def test_memory_is_what_this_process_holds():
    before = resident_bytes()
    block = bytearray(64_000_000)
    assert resident_bytes() - before > 32_000_000
    assert len(block) == 64_000_000
    assert memory_words().startswith("memory=")


def test_a_loop_without_steps_says_nothing():
    said = []
    with open_progress("sft", 5, start=5, say=said.append):
        pass
    assert said == []


def test_without_a_terminal_there_is_no_escape_code(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    said = []
    with open_progress("ppo", 2, say=said.append) as bar:
        bar.update(1, {"reward": 0.5})
        bar.update(2, {"reward": 0.75})
    assert [line.split()[1] for line in said] == ["step=1", "step=2"]
    assert "\x1b" not in "".join(said) + sys.stderr.getvalue()


def test_on_a_terminal_a_live_bar_is_drawn_and_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for no_color in (False, True):
        monkeypatch.setattr(sys, "stderr", Terminal())
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        terminal = sys.stderr
        with open_progress("ppo", 2, say=lambda text: None) as bar:
            bar.update(2, {"[reward]": 0.75})
        text = terminal.getvalue()
        assert "2/2" in text
        assert "[reward]=0.75" in text
        assert "memory=" in text
        assert ("\x1b[38;5" in text or "\x1b[3" in text) is not no_color
