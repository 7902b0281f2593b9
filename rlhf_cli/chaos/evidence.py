"""What a run left behind, as a map that two runs can be compared by, and whether what it published is whole."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from rlhf_cli.run.directory import RunDir, read_json_lines, sha256_file

_TIMES = ("time", "created", "created_at", "decided_at", "timestamp")
_VOTES = "SELECT pair_id, labeler, first, winner FROM ballots ORDER BY pair_id, id"
_ANSWERS = (
    "SELECT prompt_id, candidate, sample, seed, text FROM responses ORDER BY prompt_id, candidate, sample"
)


def gather(root: Path) -> dict[str, str]:
    """Map names to digests or values: weights, newest checkpoint with its optimizer, metrics, answers, votes."""
    run_dir = RunDir(root)
    found = {f"{folder.name}/{name}": digest for folder in (run_dir.model, run_dir.adapter)
             for name, digest in _digests(folder)}  # fmt: skip
    steps = published(root)
    if steps:
        found["checkpoint"] = steps[-1].name
        found |= {f"checkpoint/{name}": digest for name, digest in _digests(steps[-1])
                  if name.endswith(".safetensors")}  # fmt: skip
        found["checkpoint/state.json"] = _text(json.loads((steps[-1] / "state.json").read_text()))
    found["metrics"] = "\n".join(_text(row) for row in read_json_lines(run_dir.metrics))
    manifest = json.loads(run_dir.manifest.read_text())
    found["result"] = _text(manifest["result"]) + _text(manifest["extra"])
    if (root / "collect.db").exists():
        found |= _votes(root)
    return found


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """List the names under which two runs differ."""
    return sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))


def published(root: Path) -> list[Path]:
    """List the published checkpoints, oldest first."""
    return sorted(path for path in RunDir(root).checkpoints.glob("step-*") if path.is_dir())


def broken(checkpoints: Iterable[Path]) -> list[str]:
    """List the published checkpoints whose files are not what their manifest says, read without the product."""
    faults = []
    for path in checkpoints:
        try:
            files = json.loads((path / "MANIFEST.json").read_bytes())["files"]
        except (OSError, ValueError, KeyError) as error:
            faults.append(f"{path.name}: {error}")
            continue
        faults += [
            f"{path.name}/{name}"
            for name, facts in files.items()
            if not (path / name).exists() or sha256_file(path / name) != facts["sha256"]
        ]
    return faults


def _digests(folder: Path) -> list[tuple[str, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [(path.relative_to(folder).as_posix(), sha256_file(path)) for path in files]


def _votes(root: Path) -> dict[str, str]:
    rows = list(read_json_lines(root / "preferences.jsonl"))
    with closing(sqlite3.connect(root / "collect.db")) as connection:
        votes, answers = connection.execute(_VOTES).fetchall(), connection.execute(_ANSWERS).fetchall()
    return {"preferences": "\n".join(map(_text, rows)), "votes": str(votes), "answers": str(answers)}


def _text(value: object) -> str:
    return json.dumps(_without_times(value), sort_keys=True)


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in _TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value
