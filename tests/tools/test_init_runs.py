"""`rlhf init`: run.sh of the projects that need models and data from elsewhere, on tiny ones, to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf_cli.config.sections import FromScratch
from rlhf_cli.models.load import make_policy, make_vocabulary
from rlhf_cli.models.save import save_model
from rlhf_cli.tools.init import make_project

pytestmark = pytest.mark.slow

QUESTIONS = [f"What is number {n}?" for n in range(12)]
# Stands before the real program on the PATH, and adds what makes a run tiny to each command of a stage.
RLHF = """#!/usr/bin/env bash
set -euo pipefail
small=(--set train.batch_size=4 --set train.max_steps=2 --set train.precision=float32)
case $1 in
  sft | train-rm | dpo) set -- "$@" "${small[@]}" ;;
  ppo) set -- "$@" --set train.precision=float32 --set 'ppo={iterations: 1}' \\
    --set 'rollout={batch_size: 4, max_new_tokens: 6}' ;;
  collect) set -- "$@" --set limit=8 --set generation.max_new_tokens=6 ;;
esac
case "$TEMPLATE $1 ${3:-}" in
  hh*" ppo "* | hh*" dpo "* | hh*" train-rm "*) set -- "$@" --set "data.train.0.path=$BENCH/hh.jsonl" ;;
  hh*) [[ $1 == status ]] || set -- "$@" --set "model.path=$BENCH/model" --set "data.train.0.path=$BENCH/hh.jsonl" ;;
  "sentiment sft "*) set -- "$@" --set "model.path=$BENCH/model" --set "data.train.0.path=$BENCH/reviews.jsonl" ;;
  # A judge with random weights puts hardly any weight on the labels, and nearly as much on either.
  "constitution collect "*) set -- "$@" --set "candidates.0.path=$BENCH/model" --set "labeler.chat.path=$BENCH/model" \\
    --set labeler.min_label_mass=0 --set labeler.tie_margin=0 ;;
  "constitution "*) [[ $1 == status ]] || set -- "$@" --set "model.path=$BENCH/model" ;;
esac
exec "$PYTHON" -m rlhf_cli "$@"
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model that reads long rows, HH transcripts, reviews, and a program `rlhf` that keeps runs tiny."""
    folder = tmp_path_factory.mktemp("bench")
    section = FromScratch(hidden_size=32, num_layers=1, num_heads=2, vocab_size=320, max_positions=4096)
    vocabulary = make_vocabulary(section, QUESTIONS)
    torch.manual_seed(0)
    save_model(make_policy(section, vocabulary).model, vocabulary, folder / "model")
    turns = "\n\nHuman: {}\n\nAssistant: {}"
    hh = [{"chosen": turns.format(q, "It is one."), "rejected": turns.format(q, "No.")} for q in QUESTIONS]
    for name, rows in (("hh", hh), ("reviews", [{"text": f"a fine film {q}"} for q in QUESTIONS])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "bin").mkdir()
    (folder / "bin" / "rlhf").write_text(RLHF)
    (folder / "bin" / "rlhf").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("template", "runs"),
    [
        ("hh", ["sft", "rm", "ppo", "dpo"]),
        ("sentiment", ["sft", "ppo"]),
        ("constitution", ["collect", "rm", "ppo", "dpo"]),
    ],
)
def test_run_sh_runs_every_stage_to_its_end(template: str, runs: list[str], bench: Path, tmp_path: Path):
    project = tmp_path / "project"
    make_project(project, template, None)
    environment = os.environ | {
        "PATH": f"{bench / 'bin'}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "BENCH": str(bench),
        "TEMPLATE": template,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [project / "run.sh"], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for run in runs:
        assert json.loads((project / "runs" / run / "manifest.json").read_text())["status"] == "completed"
    if template == "constitution":
        rows = (project / "runs" / "collect" / "preferences.jsonl").read_text().splitlines()
        assert rows
        assert all(0 < json.loads(row)["p_chosen"] < 1 for row in rows)
