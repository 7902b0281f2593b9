"""The model card of an exported model: what its run's files say about data, training and results.

Folders of this machine are named by their last part only: a card is for others.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.run.directory import RunDir, write_atomic
from rlhf_cli.run.manifest import Manifest, read_manifest
from rlhf_cli.tools.status import RunStatus, read_status
from rlhf_cli.tools.text_table import number

_WHAT = {
    "sft": "fine-tuned on demonstrations",
    "train-rm": "a reward model, trained on comparisons",
    "ppo": "optimised against a reward with PPO",
    "dpo": "optimised on comparisons with DPO",
}
_DEPTH = 8


def write_card(source: str, out: Path, dtype: str) -> None:
    """Write README.md into the exported model."""
    folder = Path(source)
    root = folder if RunDir(folder).manifest.is_file() else folder.parent
    manifest = read_manifest(RunDir(root))
    status = read_status(root) if manifest else None
    lines = _head(manifest, dtype)
    if manifest and status:
        lines += [*_chain(status), *_results(status), *_data(RunDir(root)), *_how(manifest)]
    write_atomic(out / "README.md", "\n".join(lines) + "\n")


def _head(manifest: Manifest | None, dtype: str) -> list[str]:
    stage = manifest.stage if manifest else ""
    task = "text-classification" if stage == "train-rm" else "text-generation"
    tags = ["rlhf", *([stage] if stage else [])]
    title = _WHAT.get(stage, "exported")
    return [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {task}",
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
        f"# A language model, {title}" if stage != "train-rm" else "# A reward model",
        "",
        f"Weights in {dtype}; tokenizer, chat template and stop tokens are those it was trained with.",
        "",
        "Intended use, limits, licence: to be written by whoever publishes it.",
        "",
    ]


def _chain(status: RunStatus) -> list[str]:
    lines = ["## Where it comes from", ""]
    for depth, run, role in _ancestors(status, "", 0):
        words = (
            f"{_named(run.path)}: {run.stage}, {number(run.steps)} steps"
            if isinstance(run, RunStatus)
            else run
        )
        lines.append(f"{'  ' * depth}- {role + ': ' if role else ''}{words}")
    return [*lines, ""]


def _ancestors(status: RunStatus, role: str, depth: int) -> Iterator[tuple[int, RunStatus | str, str]]:
    yield depth, status, role
    for origin in status.origins:
        parent = read_status(Path(origin.path)) if origin.state and depth < _DEPTH else None
        if parent:
            yield from _ancestors(parent, origin.role, depth + 1)
        else:
            yield depth + 1, _named(origin.path), origin.role


def _named(path: str) -> str:
    """Name a place: a Hub name as it is, a folder or file of this machine by its last part."""
    return Path(path).name if Path(path).is_absolute() or Path(path).exists() else path


def _results(status: RunStatus) -> list[str]:
    if not status.metrics:
        return []
    rows = [f"| {name} | {number(value)} |" for name, value in sorted(status.metrics.items())]
    return ["## Metrics at the end of training", "", "| metric | value |", "|---|---|", *rows, ""]


def _data(run_dir: RunDir) -> list[str]:
    if not run_dir.data_report.is_file():
        return []
    lines = ["## Data", ""]
    for report in json.loads(run_dir.data_report.read_text(encoding="utf-8")):
        tokens = report["tokens"]
        lines.append(
            f"- {report['name']}: {report['rows_kept']} of {report['rows_read']} rows, {tokens['total']} tokens,"
            f" the longest row {tokens['longest']}"
        )
        lines += [
            f"  - {number(count)} {reason}" for reason, count in sorted(report["counts"].items()) if count
        ]
    return [*lines, ""]


def _for_others(value: object) -> object:
    """Shorten the paths of this machine in a configuration."""
    if isinstance(value, dict):
        return {key: _for_others(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_for_others(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _how(manifest: Manifest) -> list[str]:
    tree = {
        key: value for key, value in manifest.config.tree.items() if key not in ("run_dir", "log", "data")
    }
    settings = json.dumps(_for_others(tree), indent=1, ensure_ascii=False, default=str)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        "## How it was trained",
        "",
        f"`rlhf {manifest.stage}`, seed {manifest.seed}; {versions}.",
        "",
        "```json",
        settings,
        "```",
    ]
