"""What a report is made from: everything the page needs of one run, read from its directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlhf_cli.errors import MissingInputError
from rlhf_cli.run.directory import RunDir, read_json_lines
from rlhf_cli.run.doctor.diagnose import Finding, diagnose
from rlhf_cli.run.manifest import Manifest, read_manifest
from rlhf_cli.run.metrics import MetricsLog

_MOST_ANCESTORS = 20

Json = dict[str, object]


@dataclass(frozen=True)
class Ancestor:
    """One link of the chain of origin: `depth` 0 is what the run itself was made from."""

    depth: int
    role: str
    path: str
    digest: str
    stage: str
    status: str


@dataclass(frozen=True)
class Answer:
    """What the policy said to one prompt, at each evaluation in turn."""

    prompt: str
    tries: list[tuple[int, str, float]]


@dataclass(frozen=True)
class RunFiles:
    """One run as a report shows it; what a run did not record is empty."""

    name: str
    root: Path
    manifest: Manifest
    rows: list[dict[str, float]]
    config: str
    data: list[Json]
    rendered_rows: str
    evaluation: Json
    answers: list[Answer]
    findings: list[tuple[str, Finding]]
    ancestors: list[Ancestor]

    @property
    def metric_names(self) -> list[str]:
        """The names of all metrics, without `eval/`, in order of appearance."""
        names = (name.removeprefix("eval/") for row in self.rows for name in row)
        return [name for name in dict.fromkeys(names) if name not in ("step", "time")]


def read_runs(roots: Sequence[Path]) -> list[RunFiles]:
    """Read runs, each under the shortest name that tells it from the others.

    Raises MissingInputError where a directory holds no run.
    """
    names = short_names([root.absolute() for root in roots])
    runs = []
    for root, name in zip(roots, names, strict=True):
        run = read_run(root)
        if run is None:
            raise MissingInputError(
                "there is no run here: manifest.json is missing",
                where=str(root),
                fix="Name the run_dir of a stage.",
            )
        runs.append(replace(run, name=name))
    return runs


def short_names(paths: Sequence[Path]) -> list[str]:
    """Name paths by as many of their last parts as it takes to tell them apart."""
    longest = max(len(path.parts) for path in paths)
    for count in range(1, longest + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def read_run(root: Path) -> RunFiles | None:
    """Read the run in `root`; None where there is none. A file that is missing or torn counts as empty."""
    run_dir = RunDir(root)
    manifest = read_manifest(run_dir)
    if manifest is None:
        return None
    rows = MetricsLog(run_dir.metrics).read()
    data = _read_json(run_dir.data_report)
    evaluation = _read_json(run_dir.evaluation)
    return RunFiles(
        name=root.absolute().name,
        root=root,
        manifest=manifest,
        rows=rows,
        config=_read(run_dir.resolved),
        data=[entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else [],
        rendered_rows=_read(run_dir.samples),
        evaluation=evaluation if isinstance(evaluation, dict) else {},
        answers=read_answers(run_dir),
        findings=_findings(run_dir, manifest.stage, rows),
        ancestors=list(_ancestors(manifest, root, 0, {root.resolve()})),
    )


def read_answers(run_dir: RunDir) -> list[Answer]:
    """Gather what each prompt was answered over time; a step that was evaluated twice counts once."""
    by_prompt: dict[str, dict[int, tuple[str, float]]] = {}
    for line in read_json_lines(run_dir.answers):
        match line:
            case {
                "step": int(step),
                "prompt": str(prompt),
                "answer": str(answer),
                "score": int() | float() as score,
            }:
                by_prompt.setdefault(prompt, {})[step] = (answer, score)
    return [
        Answer(prompt, [(step, answer, score) for step, (answer, score) in sorted(tries.items())])
        for prompt, tries in by_prompt.items()
    ]


def _findings(run_dir: RunDir, stage: str, rows: Sequence[dict[str, float]]) -> list[tuple[str, Finding]]:
    """Pair what is wrong at the end, and what was said on the way and has passed, with when that was."""
    standing = diagnose(stage, rows)
    named = {finding.rule for finding in standing}
    passed = []
    for event in read_json_lines(run_dir.events):
        match event:
            case {"kind": "doctor", "step": int(step), "rule": str(rule), "metric": str(metric)} if (
                rule not in named
            ):
                finding = Finding(rule, metric, str(event.get("message", "")), str(event.get("keys", "")))
                passed.append((f"at step {step}, not any more", finding))
                named.add(rule)
    return [("now", finding) for finding in standing] + passed


def _ancestors(manifest: Manifest, root: Path, depth: int, seen: set[Path]) -> list[Ancestor]:
    """Follow the parents that are runs themselves, each once."""
    found: list[Ancestor] = []
    for parent in manifest.parents:
        place = Path(parent.path)
        runs = [run for run in (place, place.parent) if RunDir(run).manifest.is_file()]
        upstream = read_manifest(RunDir(runs[0])) if runs else None
        stage, status = (upstream.stage, upstream.status) if upstream else ("", "")
        found.append(Ancestor(depth, parent.role, parent.path, parent.digest, stage, status))
        if upstream and runs[0].resolve() not in seen and depth < _MOST_ANCESTORS:
            seen.add(runs[0].resolve())
            found += _ancestors(upstream, runs[0], depth + 1, seen)
    return found


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_json(path: Path) -> object:
    try:
        return json.loads(_read(path))
    except ValueError:
        return None
