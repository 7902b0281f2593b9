"""From a configured path to a loadable model: a run directory, a model directory, or a hub id."""

import json
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.run.directory import RunDir, digest_dir


@dataclass(frozen=True, slots=True)
class Located:
    """What to hand to `from_pretrained`, and the identity of it.

    digest  sha256 over the files of a local directory; for a hub id, `id@revision`
    run     the upstream run directory, when the path was one
    """

    name: str
    digest: str
    run: Path | None


def locate(path: str, revision: str | None = None) -> Located:
    """Resolve a model path.

    Raises MissingInputError when a local-looking path does not exist, DataError when an upstream run is unfinished.
    """
    local = Path(path)
    if not local.exists():
        if path.startswith((".", "/", "~")) or path.count("/") != 1 or local.parent.is_dir():
            raise MissingInputError(
                f"no model at {path}",
                where="model path",
                fix="run the stage that makes it first, or give a model directory or a hub id (owner/name)",
            )
        return Located(path, f"{path}@{revision or 'main'}", None)
    run_dir = RunDir(local)
    if run_dir.manifest.exists():
        _require_completed(run_dir)
        return Located(str(run_dir.model), digest_dir(run_dir.model), local)
    if not (local / "config.json").exists():
        raise MissingInputError(
            f"{path} holds neither a run (manifest.json) nor a model (config.json)",
            where="model path",
            fix="point at a finished run directory or a model directory",
        )
    return Located(str(local), digest_dir(local), None)


def _require_completed(run_dir: RunDir) -> None:
    manifest = json.loads(run_dir.manifest.read_text(encoding="utf-8"))
    if manifest["status"] != "completed" or not run_dir.model.exists():
        raise DataError(
            f"the run in {run_dir.root} is {manifest['status']}, not completed, or it makes no model",
            where=str(run_dir.manifest),
            fix=f"finish it first: repeat its command ({' '.join(manifest['argv'])})",
        )
