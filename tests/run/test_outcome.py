"""What tools write to stdout: text, or one strict JSON object, to whoever still reads."""

import json
import subprocess
import sys

from rlhf_cli.run.outcome import Outcome


def test_text_without_json(capsys):
    Outcome(["status"]).show("status", {"runs": 2}, "two runs")
    assert capsys.readouterr().out == "two runs\n"


def test_json_is_strict_and_carries_its_schema(capsys):
    record = {"value": float("nan"), "deep": [{"x": float("inf")}, (1.5, "é")]}
    Outcome(["status", "--json"]).show("status", record, "unused")
    out = capsys.readouterr().out
    assert json.loads(out) == {"schema": "rlhf.status/1", "value": None, "deep": [{"x": None}, [1.5, "é"]]}
    assert "NaN" not in out


def test_a_reader_that_goes_away_is_no_failure():
    program = "from rlhf_cli.run.outcome import write_out\nfor _ in range(1000): write_out('x' * 9999)"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
