"""Signals while a stage starts and imports, reads, loads: nothing is lost, and the exit code says so."""

import signal
import time
from pathlib import Path

import pytest
from tiny import Tiny, run_command, start_command

from rlhf_cli.__main__ import STAGES
from rlhf_cli.commands import stages


def test_the_stages_that_listen_are_all_stages():
    assert tuple(stages.STAGES) == STAGES


def wait_until_it_listens(process) -> None:
    """Return once Python has installed a handler for SIGTERM, as the system tells it."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def seconds_undisturbed(stage: str, tiny: Tiny, tmp_path: Path) -> float:
    """Run a stage to its end in a directory of its own; return how long it took from listening on."""
    process = start_command(stage, tiny.settings(stage), tmp_path, "--run-dir", "undisturbed")
    wait_until_it_listens(process)
    start = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode == 0
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells which signals are caught"
)
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_any_signal_at_start_up_ends_with_75_and_nothing_is_lost(stage: str, tiny: Tiny, tmp_path: Path):
    settings = tiny.settings(stage)
    whole = seconds_undisturbed(stage, tiny, tmp_path)
    for number, share in [
        (signal.SIGTERM, 0.0),
        (signal.SIGINT, 0.02),
        (signal.SIGUSR1, 0.1),
        (signal.SIGUSR2, 0.2),
        (signal.SIGHUP, 0.35),
        (signal.SIGTERM, 0.5),
    ]:
        process = start_command(stage, settings, tmp_path)
        wait_until_it_listens(process)
        time.sleep(share * whole)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 75, said
        assert "run the same command again" in said
        assert "Traceback" not in said
    assert run_command(stage, settings, tmp_path).returncode == 0


@pytest.mark.slow
def test_a_second_interrupt_at_start_up_ends_with_130(tiny: Tiny, tmp_path: Path):
    process = start_command("sft", tiny.settings("sft"), tmp_path)
    wait_until_it_listens(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode in (75, 130)  # two of them may arrive as one
    assert run_command("sft", tiny.settings("sft"), tmp_path).returncode == 0
