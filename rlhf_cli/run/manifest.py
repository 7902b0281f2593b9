"""manifest.json: what a run is, where it comes from, how often it was tried, and what it left behind."""

import importlib.metadata
import os
import platform
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhf_cli.errors import RunConflictError
from rlhf_cli.redaction import redact
from rlhf_cli.run.directory import RunDir, write_atomic
from rlhf_cli.run.failures import known_failure

Status = Literal["running", "completed", "preempted", "failed", "killed"]

_PACKAGES = ("rlhf-cli", "torch", "transformers", "tokenizers", "datasets", "peft", "safetensors", "numpy")
# By name, because an environment also holds secrets.
_SLURM_VARIABLES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_NTASKS",
    "SLURM_RESTART_COUNT",
)


class Record(BaseModel):
    """Ignores what a later version of this package may add."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ConfigRecord(Record):
    digest: str
    tree: dict[str, object]


class Parent(Record):
    """Something the run was made from, such as role "model", and the digest of its content."""

    role: str
    path: str
    digest: str


class Drift(Record):
    """A change between two attempts that was asked for: "data.train: 1f3c... -> 90ab..."."""

    change: str
    accepted: str


class Attempt(Record):
    """One process that worked on the run; "killed" if it ended without a word."""

    started: str
    ended: str | None = None
    status: Status = "running"
    exit_code: int | None = None
    host: str
    pid: int
    resumed_from_step: int | None = None
    slurm: dict[str, str] = {}


class Result(Record):
    """What a completed run leaves behind; `artifact` is relative to the run where it lies inside.

    `digest` is that of a folder by `digest_dir`, or of a file's bytes; "" where it is not known.
    """

    artifact: str
    digest: str = ""
    steps: int
    metrics: dict[str, float | None] = {}


class Manifest(Record):
    """The record; the top-level status and exit code are those of the last attempt."""

    format: Literal["rlhf.run/1"] = Field(default="rlhf.run/1", alias="schema")
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    stage: str
    status: Status = "running"
    exit_code: int | None = None
    argv: list[str] = []
    config: ConfigRecord
    seed: int | None = None
    parents: list[Parent] = []
    identity: dict[str, str] = {}
    drifts: list[Drift] = []
    versions: dict[str, str] = {}
    git: str | None = None
    attempts: list[Attempt] = []
    last_checkpoint_step: int | None = None
    result: Result | None = None
    extra: dict[str, object] = {}

    def write(self, run_dir: RunDir) -> None:
        """Replace the run's manifest.json atomically."""
        write_atomic(run_dir.manifest, redact(self.model_dump_json(by_alias=True, indent=2)) + "\n")

    def close_attempt(self, status: Status, exit_code: int | None) -> None:
        """Write the outcome of the current attempt into it and into the run."""
        self.status, self.exit_code = status, exit_code
        self.attempts[-1].status, self.attempts[-1].exit_code = status, exit_code
        self.attempts[-1].ended = utc_now()


def read_manifest(run_dir: RunDir) -> Manifest | None:
    """Return the run's record, None where there is none; RunConflictError where it cannot be read."""
    try:
        return Manifest.model_validate_json(run_dir.manifest.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # a name that is too long, a folder that may not be read
        if known_failure(error):
            raise
        raise RunConflictError(
            f"run_dir cannot be used: {error.strerror}",
            where=str(run_dir.root)[:200],
            fix="Choose another run_dir.",
        ) from error
    except ValidationError as error:
        raise RunConflictError(
            f"{run_dir.manifest} is not the manifest of a run: {error.errors()[0]['msg']}",
            where=str(run_dir.manifest),
            fix="Choose another run_dir, or move this directory away.",
        ) from error


def artifact_path(run_dir: RunDir, manifest: Manifest) -> Path | None:
    """Return where the artifact of a completed run lies, None where it is missing."""
    if manifest.status != "completed" or manifest.result is None:
        return None
    path = run_dir.root / manifest.result.artifact
    return path if path.exists() else None


def begin_attempt() -> Attempt:
    """Describe this process."""
    slurm = {name: os.environ[name] for name in _SLURM_VARIABLES if name in os.environ}
    return Attempt(started=utc_now(), host=platform.node(), pid=os.getpid(), slurm=slurm)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and the packages that shape results, importing none of them."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """Return the commit of the working directory, with "-dirty" behind it for changes; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
