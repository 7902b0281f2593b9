"""A sealed folder: MANIFEST.json, written last, lists size and sha256 of every other file, and vouches for itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_cli.errors import CheckpointError
from rlhf_cli.run.directory import sha256_file
from rlhf_cli.run.faults import fault_point

SEAL = "MANIFEST.json"


def seal(folder: Path, facts: Mapping[str, object]) -> None:
    """Write the manifest of the files in `folder`, with `facts` about them."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.iterdir())
    }
    fault_point("seal.write", folder / SEAL)
    (folder / SEAL).write_bytes(_signed({**facts, "files": files}))


def check_seal(folder: Path) -> dict[str, Any]:
    """Return the facts and `files` of a sealed folder. Raises CheckpointError where a byte is not what was sealed."""
    try:
        content = (folder / SEAL).read_bytes()
        manifest: dict[str, Any] = json.loads(content)
        del manifest["digest"]
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{SEAL} cannot be read: {error}", where=str(folder)) from error
    if _signed(manifest) != content:
        raise CheckpointError(f"{SEAL} is not what was written", where=str(folder))
    found = {path.name for path in folder.iterdir()} - {SEAL}
    if odd := sorted(found ^ files.keys()):
        words = "was never part of it" if odd[0] in found else "is missing"
        raise CheckpointError(f"{odd[0]} {words}", where=str(folder))
    for name, facts in files.items():
        _check_file(folder / name, facts["size"], facts["sha256"])
    return manifest


def _check_file(path: Path, size: int, digest: str) -> None:
    try:
        if path.stat().st_size != size:
            raise CheckpointError(f"{path.name} has another size than it was written with", where=str(path))
        if sha256_file(path) != digest:
            raise CheckpointError(f"{path.name} is not what was written", where=str(path))
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error


def _signed(manifest: Mapping[str, object]) -> bytes:
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "digest": digest}, indent=1).encode()
