"""Runs made of files alone, as a report reads them: no training happens."""

import json
from collections.abc import Mapping
from pathlib import Path

from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.session import Run, StageResult, open_run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def make_run(root: Path, stage: str, rows: list[dict[str, float]], **files: object) -> Run:
    """Write a finished run with these lines of metrics and these extra files, JSON unless text."""
    spec = RunSpec(
        stage, root, "d" * 64, {"seed": 3}, resolved_text=f"note: {HOSTILE}\n", argv=["rlhf", stage]
    )
    with open_run(spec) as run:
        for row in rows:
            run.note_metrics(int(row["step"]), {name: value for name, value in row.items() if name != "step"})
        run.add_parent("model", "some/model", "e" * 64)
        run.dir.samples.parent.mkdir()
        run.dir.samples.write_text(f"⟦{HOSTILE}⟧")
        run.dir.data_report.write_text(json.dumps([data_report()]))
        for name, content in files.items():
            path = {"evaluation": run.dir.evaluation, "answers": run.dir.answers}[name]
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        run.finish(StageResult(root, 3, {"eval/loss": 0.25, "none": float("nan"), HOSTILE: 1.0}))
    return run


def data_report() -> Mapping[str, object]:
    return {
        "name": "train",
        "formats": [HOSTILE],
        "rows_read": 1200,
        "rows_rejected": 1,
        "rejected": [f"a.jsonl:3: {HOSTILE}"],
        "counts": {"trained tokens": 12345, "cut to the limit": 0},
        "rows_kept": 1199,
        "tokens": {"total": 9, "median": 3.0, "longest": 5, "limit": 8},
    }


def ppo_rows(count: int = 6) -> list[dict[str, float]]:
    return [
        {"step": 8.0 * i, "reward": 0.1 * i, "kl": 0.3 * i, "length": 20.0, "entropy": 1.0, "eos_rate": 1.0}
        for i in range(1, count + 1)
    ]


def answers_text() -> str:
    lines = [
        {"step": step, "prompt": HOSTILE, "answer": f"answer at {step}", "score": step / 10, "finished": True}
        for step in (0, 8, 8)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)
