"""Run one process to its end and measure it from outside."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took: seconds from start to exit, and its largest resident (or GPU) memory in bytes."""

    wall_seconds: float
    peak_bytes: int


def run_measured(
    command: Sequence[str], log: Path, *, gpu: bool = False, env: Mapping[str, str] | None = None
) -> Usage:
    """Run a command, stdout and stderr into `log`; end this program when it fails.

    The kernel counts this process's own memory towards a child's peak, so this process must stay small: it never
    imports torch.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, **(env or {})},
        )
        watch = GpuWatch(child.pid) if gpu else None
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_seconds = time.perf_counter() - began
    if child.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        sys.exit(f"{tail}\nerror: {' '.join(command)} ended with {child.returncode}; its output is in {log}")
    return Usage(wall_seconds, watch.stop() if watch else usage.ru_maxrss * 1024)


class GpuWatch:
    """Ask the driver ten times a second how much GPU memory a process holds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End the watch and give the largest amount seen, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak_bytes

    def _watch(self) -> None:
        query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.1):
            listing = subprocess.run(query, capture_output=True, text=True, check=False).stdout
            for line in listing.splitlines():
                pid, _, mebibytes = line.partition(",")
                if pid.strip() == str(self._pid) and mebibytes.strip().isdigit():
                    self._peak_bytes = max(self._peak_bytes, int(mebibytes) * 2**20)
