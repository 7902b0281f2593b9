"""Several processes of one run on this machine, as a launcher would start them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tiny import Settings, write_config


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_ranks(
    stage: str,
    settings: Settings,
    folder: Path,
    size: int,
    *options: str,
    stdout: int = subprocess.DEVNULL,
) -> "list[subprocess.Popen[str]]":
    """Start `rlhf STAGE` as ranks 0 to size - 1, which meet on loopback; what they say goes to files beside it."""
    path = write_config(stage, settings, folder)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    processes = []
    for rank in range(size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with (folder / f"said-{rank}.txt").open("w") as said:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "rlhf_cli", stage, "--config", str(path), *options],
                    cwd=folder,
                    env=os.environ | meeting | own,
                    stdout=stdout,
                    stderr=said,
                    text=True,
                )
            )
    return processes


def run_ranks(stage: str, settings: Settings, folder: Path, size: int, *options: str) -> list[int]:
    """Run a stage on `size` processes to the end; return their exit codes."""
    processes = start_ranks(stage, settings, folder, size, *options)
    return [process.wait(timeout=300) for process in processes]


def said_by(folder: Path, rank: int) -> str:
    return (folder / f"said-{rank}.txt").read_text()


def wait_for_checkpoint(run: Path, step: int, processes: "list[subprocess.Popen[str]]") -> None:
    """Return once a run has a checkpoint of `step` or later; fail where a process ends before."""
    while max((int(path.name[5:]) for path in run.glob("checkpoints/step-*")), default=0) < step:
        assert all(process.poll() is None for process in processes), "ended too early"
        time.sleep(0.01)


def run_program(program: Path, folder: Path, size: int, *arguments: str) -> None:
    """Run a Python program as `size` ranks; fail with what the first to fail has said."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), *arguments],
            cwd=folder,
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * size, "\n".join(said)
