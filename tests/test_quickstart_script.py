"""The README's first command: all five stages on the embedded example, twice in a row."""

import json
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("base", "sft", "collect", "rm", "ppo", "dpo")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_quickstart_ends_with_its_table_and_keeps_its_promises(tmp_path: Path):
    first = quickstart(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    table = json.loads((tmp_path / "table.json").read_text())
    assert [gate for gate in table["gates"] if not gate["ok"]] == []
    for stage in STAGES:
        manifest = json.loads((tmp_path / stage / "manifest.json").read_text())
        assert manifest["status"] == "completed"

    began = time.monotonic()
    second = quickstart(tmp_path)
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stderr.count("already complete") == len(STAGES)
    assert time.monotonic() - began < 180  # the table alone: nothing is trained again


def quickstart(out: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / "quickstart"), "--out", str(out)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
