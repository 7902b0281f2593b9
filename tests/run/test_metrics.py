"""Means that add exactly, and the metrics log through tears and resumes."""

import json
import math

from rlhf_cli.run.metrics import Mean, MetricsLog, merge


def test_means_add_before_they_divide():
    merged = merge([{"loss": Mean(6.0, 3.0), "kl": Mean(1.0, 1.0)}, {"loss": Mean(2.0, 1.0)}])
    assert merged == {"loss": Mean(8.0, 4.0), "kl": Mean(1.0, 1.0)}
    assert merged["loss"].value == 2.0
    assert math.isnan(Mean(0.0, 0.0).value)


def test_log_is_strict_json_and_reads_back(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(1, {"loss": 0.5, "bad": math.inf})
    line = json.loads(log.path.read_text(), parse_constant=lambda name: 1 / 0)
    assert list(line) == ["step", "time", "loss", "bad"]
    assert line["bad"] is None
    row = log.read()[0]
    assert row["step"] == 1
    assert row["loss"] == 0.5
    assert math.isnan(row["bad"])


def test_truncate_after_drops_later_steps_and_the_torn_line(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate_after(0)
    assert not log.path.exists()
    for step in (1, 2, 3):
        log.append(step, {"loss": float(step)})
    first_two = log.path.read_bytes().splitlines(keepends=True)[:2]
    with log.path.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    log.truncate_after(2)
    assert log.path.read_bytes() == b"".join(first_two)
