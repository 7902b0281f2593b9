"""What a command hands back to the shell: an exit code, and on stdout a path or one JSON object."""

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cli.errors import Preempted, RlhfError
from rlhf_cli.redaction import redact
from rlhf_cli.run.failures import EXIT_INTERRUPTED, exit_code_of, known_failure, save_crash
from rlhf_cli.run.signals import StopFlag

# For their types only: they import pydantic, which `--help` can do without.
if TYPE_CHECKING:
    from rlhf_cli.run.manifest import Manifest
    from rlhf_cli.run.session import Run

_KEYS = ("stage", "status", "exit_code", "run_dir", "artifact", "steps", "metrics", "error")


@dataclass
class Outcome:
    """How far a command came.

    `status` is None until there is something to report, then one of completed, already_complete, dry_run,
    preempted, failed. `stop` is set by signals from the first moment of a stage on. Of several processes only rank 0
    writes a result.
    """

    arguments: list[str]
    stage: str | None = None
    status: str | None = None
    exit_code: int = 0
    run_dir: Path | None = None
    artifact: Path | None = None
    steps: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    error: dict[str, object] | None = None
    run: "Run | None" = None
    stop: StopFlag | None = None
    rank: int = 0

    @property
    def as_json(self) -> bool:
        """Whether stdout is kept for the JSON object."""
        return "--json" in self.arguments

    def complete(self, status: str, manifest: "Manifest") -> None:
        """Take over the result of the run in `run_dir`, completed now or before."""
        self.status = status
        if manifest.result and self.run_dir:
            self.artifact = self.run_dir / manifest.result.artifact
            self.steps, self.metrics = manifest.result.steps, manifest.result.metrics

    def fail(self, error: BaseException) -> None:
        """Say on stderr what ended the command, and keep it for `write`; a bug leaves its traceback in a file."""
        self.exit_code = exit_code_of(error)
        told = known_failure(error) or self._told_as_bug(error)
        self.status = "preempted" if isinstance(told, Preempted) else "failed"
        words = {"message": told.message, "where": told.where, "fix": told.fix}
        self.error = {"code": type(told).__name__}
        self.error |= {name: text and redact(text) for name, text in words.items()}
        # Names of files and of columns may hold bytes that are no text.
        if self.rank and told.is_relayed:
            return
        text = f"rank {self.rank}: {told.message}" if self.rank else str(told)
        sys.stderr.write(redact(f"{text}\n").encode(errors="backslashreplace").decode())

    def _told_as_bug(self, error: BaseException) -> RlhfError:
        if self.exit_code == EXIT_INTERRUPTED:
            again = "Run the same command again to go on from the last checkpoint." if self.stage else None
            return RlhfError("interrupted", fix=again)
        in_run = self.run.crash_file if self.run else None
        saved = in_run or save_crash(Path(tempfile.mkdtemp(prefix="rlhf-")), error)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return RlhfError(f"internal: {what}", where=str(saved), fix="Report this with the traceback there.")

    def write(self) -> None:
        """Write the result to stdout."""
        if self.rank:
            return
        if self.as_json:
            result = {"schema": "rlhf.result/1", **{key: vars(self)[key] for key in _KEYS}}
            write_out(json.dumps(result, default=str, allow_nan=False) + "\n")
        elif self.artifact:
            write_out(f"{self.artifact}\n")

    def show(self, kind: str, record: Mapping[str, object], text: str) -> None:
        """Write what a tool found to stdout: `text`, or with --json `{"schema": "rlhf.<kind>/1", **record}`.

        NaN and infinities become null.
        """
        if self.as_json:
            result = {"schema": f"rlhf.{kind}/1", **record}
            text = json.dumps(_strict(result), default=str, allow_nan=False, ensure_ascii=False)
        write_out(text.rstrip("\n") + "\n")


def write_out(text: str) -> None:
    """Write to stdout and flush; a reader that has gone away, such as `head`, has read enough."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end


def _strict(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    return [_strict(inner) for inner in value] if isinstance(value, list | tuple) else value
