"""From a configured path to a loadable model: a run directory, a model directory, or a hub id."""

import json
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.run.directory import RunDir, digest_dir

_GET_AGAIN = "get the model again"


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
        _refuse_names_outside(run_dir.model)
        return Located(str(run_dir.model), digest_dir(run_dir.model), local)
    if not (local / "config.json").exists():
        raise MissingInputError(
            f"{path} holds neither a run (manifest.json) nor a model (config.json)",
            where="model path",
            fix="point at a finished run directory or a model directory",
        )
    _refuse_names_outside(local)
    return Located(str(local), digest_dir(local), None)


def _require_completed(run_dir: RunDir) -> None:
    try:
        manifest = json.loads(run_dir.manifest.read_bytes())
        status, command = str(manifest["status"]), " ".join(manifest["argv"])
    except (ValueError, KeyError, TypeError) as error:
        fix = "give another model, or restore the file"
        raise DataError("this is not the manifest of a run", where=str(run_dir.manifest), fix=fix) from error
    if status != "completed" or not run_dir.model.exists():
        raise DataError(
            f"the run in {run_dir.root} is {status}, not completed, or it makes no model",
            where=str(run_dir.manifest),
            fix=f"finish it first: repeat its command ({command})",
        )


def _refuse_names_outside(folder: Path) -> None:
    """Raise DataError where the index of a model's shards names a file that is not in its own folder."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{index.name} is not an index of weights", where=str(index), fix=_GET_AGAIN
            ) from error
        if odd := sorted(str(name) for name in names if Path(str(name)).name != name):
            raise DataError(
                f"{index.name} names {odd[0]!r}, outside its folder", where=str(index), fix=_GET_AGAIN
            )
