"""The points where tests make a process fail: they count per process, and they do fire."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.run import faults
from rlhf_cli.run.directory import append_json_line, publish_dir, write_atomic
from rlhf_cli.run.faults import fault_point


@pytest.fixture(autouse=True)
def _fresh_counts():
    faults._counts.clear()


def passes(name: str, times: int) -> list[int]:
    """Pass a point some times; say which times raised, counted from 1."""
    raised = []
    for number in range(1, times + 1):
        try:
            fault_point(name, Path("file"))
        except OSError:
            raised.append(number)
    return raised


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("a.b:2=ENOSPC", [2]),
        ("a.b:2+=ENOSPC", [2, 3, 4]),
        ("*:3=ENOSPC", [3]),
        ("other:1=ENOSPC", []),
        (None, []),
    ],
)
def test_a_rule_names_the_operation_and_the_time(monkeypatch, rule, expected):
    if rule:
        monkeypatch.setenv("RLHF_FAULT", rule)
    assert passes("a.b", 4) == expected


@pytest.mark.parametrize("rule", ["a.b", "a.b=kill", "a.b:0=kill", "a.b:1=NOTHING"])
def test_a_rule_that_means_nothing_is_never_passed_over(monkeypatch, rule):
    monkeypatch.setenv("RLHF_FAULT", rule)
    with pytest.raises((ValueError, KeyError)):
        fault_point("a.b", Path("file"))


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("term", signal.SIGTERM)])
def test_a_signal_is_really_sent_and_a_fork_counts_anew(tmp_path, action, number):
    code = """
import os, sys
from pathlib import Path
from rlhf_cli.run.faults import fault_point
fault_point("a", Path("file"))
if os.fork() == 0:
    fault_point("a", Path("file"))
    os._exit(0)
assert os.wait()[1] == 0, "the child counted on"
fault_point("a", Path("file"))
"""
    environment = os.environ | {"RLHF_FAULT": f"a:2={action}"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -number


def test_a_recording_lists_every_operation_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_FAULT_RECORD", str(tmp_path / "operations.txt"))
    monkeypatch.setenv("RLHF_FAULT", "publish.rename:1=EIO")
    write_atomic(tmp_path / "a.txt", "a")
    append_json_line(tmp_path / "b.jsonl", {})
    (tmp_path / "c").mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        publish_dir(tmp_path / "c", tmp_path / "d")
    assert (tmp_path / "operations.txt").read_text().splitlines() == [
        "1 atomic.write a.txt -",
        "2 atomic.fsync a.txt -",
        "3 atomic.rename a.txt -",
        "4 atomic.fsync_parent a.txt -",
        "5 append.write b.jsonl -",
        "6 append.fsync b.jsonl -",
        "7 publish.fsync c -",
        "8 publish.rename d EIO",
    ]
