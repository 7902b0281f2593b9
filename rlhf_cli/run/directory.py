"""The files of a run directory, and the few ways of writing to disk so that a crash never tears a file."""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.redaction import redact
from rlhf_cli.run.faults import fault_point

_LEFTOVER = re.compile(r"\..+\.(tmp|del)-[0-9a-f]{8}")


@dataclass(frozen=True)
class RunDir:
    """Names every file of the run at `root`; creates nothing. A `shared_cache` is that of another run."""

    root: Path
    shared_cache: Path | None = None

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def config(self) -> Path:
        """The configuration as the user gave it."""
        return self.root / "config.yaml"

    @property
    def resolved(self) -> Path:
        """The configuration with defaults, `extends` and `--set` worked in."""
        return self.root / "config.resolved.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def data_report(self) -> Path:
        return self.root / "data" / "report.json"

    @property
    def samples(self) -> Path:
        """A few rows as the model sees them."""
        return self.root / "data" / "samples.txt"

    @property
    def evaluation(self) -> Path:
        """Distributions that the last evaluation saw: histograms of scores, calibration."""
        return self.root / "evaluation.json"

    @property
    def answers(self) -> Path:
        """What a policy answered to some held-out prompts at each evaluation."""
        return self.root / "answers.jsonl"

    @property
    def rejects(self) -> Path:
        """Every row of the data that gave no record, and why."""
        return self.root / "data" / "rejects.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def cache(self) -> Path:
        """What is computed once for all attempts, and again if it is deleted."""
        return self.shared_cache or self.root / "cache"

    @property
    def model(self) -> Path:
        """The final model: what `from_pretrained` loads."""
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        """The final LoRA adapter, when the run trains one."""
        return self.root / "adapter"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` so that a reader, or a crash, sees the old content or the new, never a mixture."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        fault_point("atomic.write", path)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            fault_point("atomic.fsync", path)
            os.fsync(file.fileno())
        fault_point("atomic.rename", path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fault_point("atomic.fsync_parent", path)
    fsync_path(path.parent)


def sweep(folder: Path) -> None:
    """Delete what writers that were killed have left in `folder`: nothing that a name without a dot refers to."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def publish_dir(tmp: Path, final: Path, *, replace: bool = False) -> None:
    """Flush everything under `tmp` and rename it to `final`, its sibling: `final` exists whole or not at all.

    Raises OSError where `final` is a non-empty directory, unless `replace` moves the old one out of the way.
    """
    for folder, _, names in os.walk(tmp):
        for path in (*(Path(folder, name) for name in sorted(names)), Path(folder)):
            fault_point("publish.fsync", path)
            fsync_path(path)
    doomed = final.with_name(f".{final.name}.del-{uuid.uuid4().hex[:8]}")
    if replace and final.exists():
        fault_point("publish.set_aside", final)
        final.rename(doomed)
    fault_point("publish.rename", final)
    tmp.rename(final)
    fault_point("publish.fsync_parent", final)
    fsync_path(final.parent)
    if doomed.exists():
        fault_point("publish.delete", doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_dir(path: Path) -> str:
    """Return the identity of a model directory: SHA-256 over its sorted relative names and their file hashes.

    Hidden files and folders do not count: caches and editors leave them behind.
    """
    files = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    visible = {name.as_posix(): file for name, file in files.items() if not _is_hidden(name)}
    lines = [f"{sha256_file(visible[name])}  {name}\n" for name in sorted(visible)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_path(path: Path) -> str:
    """Return the identity of a folder or a file; "" where there is none."""
    if path.is_dir():
        return digest_dir(path)
    return sha256_file(path) if path.is_file() else ""


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def append_json_line(path: Path, record: Mapping[str, object]) -> None:
    """Append one JSON line and flush it to disk, closing a line that an earlier crash left torn.

    Where the disk refuses, the file is put back as it was and OSError raised.
    """
    line = redact(json.dumps(record, ensure_ascii=False, allow_nan=False)).encode() + b"\n"
    fault_point("append.write", path)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            fault_point("append.fsync", path)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_json_lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield the objects of a JSON-lines file; a torn line is passed over, a missing file counts as empty."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
