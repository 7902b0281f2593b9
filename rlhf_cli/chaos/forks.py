"""Run the command line in forked children: what costs seconds to import is imported once, a trial costs a fork."""

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.cli import main
from rlhf_cli.run.signals import StopFlag

_DEADLINE_SECONDS = 120.0
_CRASHED = 70  # of the harness itself; no exit code of ours
_WARM = (
    *(f"rlhf_cli.stages.{name}" for name in ("sft", "train_rm", "dpo", "ppo", "collect", "answering")),
    "rlhf_cli.config.load",
    "rlhf_cli.run.session",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "pandas",
    "pyarrow.parquet",
    "peft",
    "peft.tuners.lora",
    "peft.peft_model",
)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: the signal that ended it; None: it hung), and its stderr."""

    code: int | None
    said: str
    seconds: float

    @property
    def last_line(self) -> str:
        lines = [line for line in self.said.splitlines() if line.strip()]
        return lines[-1] if lines else "(nothing said)"


class Child:
    """One running command."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid = pid
        self._said = said
        self._began = time.monotonic()
        self._code: int | None = None

    def is_running(self) -> bool:
        """Say whether it still runs; collects its exit code once it does not."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def strike(self, number: signal.Signals, after_seconds: float) -> bool:
        """Send a signal some time from now; say whether the child was still running then."""
        time.sleep(after_seconds)
        running = self.is_running()
        if running:
            os.kill(self.pid, number)
        return running

    def pause(self) -> bool:
        """Halt it where it is; say whether it was still running. `send(SIGCONT)` lets it go on."""
        if not self.is_running():
            return False
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._code = os.waitstatus_to_exitcode(status)
        return self._code is None

    def send(self, *numbers: signal.Signals) -> None:
        """Send signals to it; it must not have ended."""
        for number in numbers:
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end; a child that hangs is killed."""
        while self.is_running():
            if time.monotonic() - self._began > _DEADLINE_SECONDS:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.002)
        said = self._said.read_text(encoding="utf-8", errors="replace")
        return Ended(self._code, said, time.monotonic() - self._began)


class Forks:
    """The process that all runs are forked from. It computes nothing itself: threads do not survive a fork."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._said = folder / "said.txt"

    def warm_up(self) -> None:
        """Import what every run needs, and keep the garbage collector away from it."""
        import torch

        torch.set_num_threads(1)
        for name in _WARM:
            importlib.import_module(name)
        gc.freeze()

    def start(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Child:
        """Start `rlhf` with these arguments; `prepare` runs in the child before."""
        pid = os.fork()
        if pid == 0:
            with _leaving():
                said = os.open(self._said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                os.dup2(said, 1)
                os.dup2(said, 2)
                os.chdir(self.folder)
                os.environ.update(env or {})
                if prepare:
                    prepare()
                with StopFlag().installed() as stop:  # as `python -m rlhf_cli` does, from its first moment
                    code = main(arguments, stop)
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
        return Child(pid, self._said)

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Ended:
        """Run `rlhf` with these arguments to its end."""
        return self.start(arguments, env=env, prepare=prepare).wait()


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """Never let a child return into the code of its parent."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_CRASHED)
        raise
