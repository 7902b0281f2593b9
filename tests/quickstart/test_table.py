"""The report: what it says, how wide it is, what it exits with."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from graded import answer, results
from rich.console import Console

from rlhf_cli.quickstart import table
from rlhf_cli.quickstart.gates import check_gates
from rlhf_cli.quickstart.measure import Comparison

REQUEST = (
    "Sign: Mabel the penguin plays with a bucket, comes from Norway and sleeps in the stable.\n"
    "Visitor: Where can we find Mabel at night?\nGuide:\n"
)
LONG = "Of course! Our Mabel sleeps in the stable. The gift shop sells old postcards. Enjoy your visit!"


def comparison(*, fails: bool = True) -> Comparison:
    sampled = {
        "sft": [answer(0.5, text="SFT one."), answer(0.75, text="SFT two."), answer(0.5, text="SFT three.")],
        "dpo": [answer(0.9, text="DPO one."), answer(0.25 if fails else 0.8, text=LONG), answer(0.5)],
        "ppo": [answer(0.8, text="PPO one."), answer(0.75, text="PPO two", finished=False), answer(0.6)],
    }
    return Comparison([REQUEST] * 3, sampled, sampled, results())


def report(*, width: int = 100, fails: bool = True, colors: bool = False, root: Path = Path("runs/x")) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, force_terminal=colors,
                      color_system="standard" if colors else None)  # fmt: skip
    return table.report(console, root, comparison(fails=fails), check_gates(results()))


def section(text: str, title: str) -> list[str]:
    """The lines below the line that starts with `title`, up to the next blank line but one."""
    lines = text.split(title, 1)[1].splitlines()[2:]
    return lines[: lines.index("")]


def test_a_table_has_every_figure_of_every_model():
    assert section(report(), "Temperature 1") == [
        "      gold   fact  courtesy  concise   form     RM    KL  words    EOS   wins       95 %",
        "SFT  0.600  0.500     0.400    1.000  0.900  +0.50  0.00    8.0  1.000  0.750  0.69-0.80",
        "DPO  0.800  0.500     0.400    1.000  0.900  +0.50  2.00    8.0  1.000  0.750  0.69-0.80",
        "PPO  0.900  0.500     0.400    1.000  0.900  +0.50  4.00    8.0  1.000  0.750  0.69-0.80",
    ]


def test_greedy_answers_have_no_kl_column():
    heading, *rows = section(report(), "Greedy")
    assert heading.split() == [
        "gold",
        "fact",
        "courtesy",
        "concise",
        "form",
        "RM",
        "words",
        "EOS",
        "wins",
        "95",
        "%",
    ]
    assert [row.split()[:2] for row in rows] == [["SFT", "0.800"], ["DPO", "0.850"], ["PPO", "0.800"]]


def test_answers_stand_side_by_side_with_the_failure_marked():
    text = report()
    failure = text.split("FAILURE (the worst of DPO): below SFT: DPO -0.50\n")[1].splitlines()
    assert [line.strip() for line in failure[:3]] == REQUEST.splitlines()
    heads = "  SFT 0.75                         DPO 0.25, FAILURE                PPO 0.75"
    assert failure[3] == heads
    starts = [heads.index(name) for name in ("SFT", "DPO", "PPO")]
    columns = [" ".join(line[a:b].strip() for line in failure[4:8]).split()
               for a, b in zip(starts, (*starts[1:], None), strict=True)]  # fmt: skip
    assert columns[0] == ["SFT", "two."]
    assert columns[1] == LONG.split()
    assert columns[2] == ["PPO", "two", "[never", "ended]"]
    assert text.index("the largest gain:") < text.index("the median gain:") < text.index("FAILURE")


def test_no_failure_is_said_aloud():
    text = report(fails=False)
    assert "No failure to show" in text
    assert "FAILURE" not in text


def test_promises_are_the_last_lines():
    lines = report().splitlines()[-6:]
    assert lines[0] == "ok  T=1 gold >= SFT + 0.10     DPO +0.200, PPO +0.300"
    assert all(line.startswith("ok  ") for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_nothing_is_cut_or_wider_than_the_terminal(width):
    text = report(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert len(section(text, "Temperature 1")) == len(section(text, "Greedy")) == 4
    assert [len(line.split()) for line in section(text, "Temperature 1")[1:]] == [12] * 3
    assert len(text.split("Promises")[1].split("\n\n")[1].splitlines()) == 6
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_terminal_too_narrow_for_a_table_gets_it_whole():
    assert set(section(report(width=80), "Temperature 1")) <= set(report(width=60).splitlines())


def test_colours_change_nothing_but_colours():
    colored = re.sub(r"\x1b\[[0-9;]*m", "", report(colors=True))
    assert [line.rstrip() for line in colored.splitlines()] == report().splitlines()


def test_reports_are_listed_on_one_line_each(tmp_path):
    root = tmp_path / "a-rather-long-name" / "of-a-folder-that-many-people-would-not-type-by-hand" / "example"
    for name in ("sft", "ppo"):
        (root / name).mkdir(parents=True)
        (root / name / "report.html").touch()
    lines = report(root=root, width=80).splitlines()
    assert [line for line in lines if "report.html" in line] == [
        f"  sft      {root}/sft/report.html",
        f"  ppo      {root}/ppo/report.html",
    ]


def test_piped_output_is_plain_and_100_wide_at_most(example, tmp_path):
    figures = tmp_path / "table.json"
    command = [
        sys.executable,
        "-m",
        "rlhf_cli.quickstart.table",
        "--root",
        str(example),
        "--json",
        str(figures),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "report.html" not in line) <= 100
    tree = json.loads(figures.read_text())
    assert (tree["seed"], tree["num_requests"], tree["rm_accuracy"]) == (3, 6, 0.8125)
    assert set(tree["sampled"]) == set(tree["greedy"]) == {"sft", "dpo", "ppo"}
    assert [set(gate) for gate in tree["gates"]] == [{"promise", "figures", "ok"}] * 6


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_a_missed_promise_fails_strict_runs_only(example, options, code, capsys):
    assert table.main(["--root", str(example), *options]) == code
    assert "\nMISSED  " in capsys.readouterr().out


def test_kept_promises_exit_0(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table, "compare", lambda root: comparison())
    assert table.main(["--root", str(tmp_path), "--strict"]) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_a_missing_run_is_an_error_on_stderr(tmp_path, capsys):
    assert table.main(["--root", str(tmp_path)]) == 66
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no run in ")
