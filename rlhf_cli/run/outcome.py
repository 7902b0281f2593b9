"""What a command hands back to the shell: an exit code, and on stdout a path or one JSON object."""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cli.errors import Preempted, RlhfError
from rlhf_cli.run.failures import EXIT_INTERRUPTED, exit_code_of, known_failure, save_crash

# For their types only: they import pydantic, which `--help` can do without.
if TYPE_CHECKING:
    from rlhf_cli.run.manifest import Manifest
    from rlhf_cli.run.session import Run

_KEYS = ("stage", "status", "exit_code", "run_dir", "artifact", "steps", "metrics", "error")


@dataclass
class Outcome:
    """How far a command came.

    `status` is None until there is something to report, then one of completed, already_complete, dry_run,
    preempted, failed.
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
        self.status = "preempted" if isinstance(error, Preempted) else "failed"
        told = known_failure(error) or self._told_as_bug(error)
        self.error = {"code": type(told).__name__, "message": told.message, "where": told.where}
        self.error["fix"] = told.fix
        sys.stderr.write(f"{told}\n")

    def _told_as_bug(self, error: BaseException) -> RlhfError:
        if self.exit_code == EXIT_INTERRUPTED:
            return RlhfError(
                "interrupted", fix="Run the same command again to go on from the last checkpoint."
            )
        in_run = self.run.crash_file if self.run else None
        saved = in_run or save_crash(Path(tempfile.mkdtemp(prefix="rlhf-")), error)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return RlhfError(f"internal: {what}", where=str(saved), fix="Report this with the traceback there.")

    def write(self) -> None:
        """Write the result to stdout."""
        if self.as_json:
            result = {"schema": "rlhf.result/1", **{key: vars(self)[key] for key in _KEYS}}
            sys.stdout.write(json.dumps(result, default=str, allow_nan=False) + "\n")
        elif self.artifact:
            sys.stdout.write(f"{self.artifact}\n")
