"""The documentation: tables of keys as the schema has them, links that lead somewhere, a tutorial that runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.config.stages import STAGES as CONFIGS
from rlhf_cli.run.doctor.rules import RULES
from scripts.docs.keys import key_rows, page_with_table
from scripts.docs.terminal import svg_of

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
SUFFIXES = ("yaml", "jsonl", "json", "md", "py", "html", "txt", "db")
SHRUNK = """
rlhf() {
  case "$1 ${3:-}" in
    "sft base.yaml") set -- "$@" --set train.max_steps=2 --set 'data.train=[{path: data/base.jsonl, limit: 200}]' ;;
    "sft sft.yaml") set -- "$@" --set train.max_steps=2 --set eval.max_rows=8 ;;
    "collect "*) set -- "$@" --set limit=12 --set generation.max_new_tokens=8 ;;
    "train-rm "*|"dpo "*) set -- "$@" --set train.max_steps=2 --set train.batch_size=4 ;;
    "ppo "*) set -- "$@" --set ppo.iterations=1 --set rollout.batch_size=8 --set rollout.max_new_tokens=8 \\
      --set eval.max_rows=4 ;;
  esac
  "$PYTHON" -m rlhf_cli "$@"
}
"""


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_table_of_keys_is_that_of_the_schema(stage: str):
    path, text, wanted = page_with_table(stage)
    assert text == wanted, f"{path.name} is stale: run python -m scripts.docs.keys"
    assert text.count("| `run_dir` | required |") == 1


def test_every_key_says_what_it_means():
    for stage, section in CONFIGS.items():
        assert not [key for key, _, meaning in key_rows(section) if not meaning], stage


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_and_images_lead_somewhere(page: Path):
    for target in re.findall(r"(?<!\[)\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_a_picture_of_a_terminal_has_its_words_in_their_colours_and_loads_nothing():
    drawn = svg_of("\x1b[38;2;1;2;3mred\x1b[0m plain\n", "title")
    kept = [path.read_text() for path in (ROOT / "docs" / "images").glob("*.svg")]
    assert "#010203" in drawn
    for text in (drawn, *kept):
        assert len(re.findall(r"<text", text)) > 2
        assert not re.findall(r"@font-face|href=|src=|url\(['\"]?http|<script", text)


def test_keys_that_pages_and_findings_name_exist():
    keys = {key for section in CONFIGS.values() for key, _, _ in key_rows(section)}
    plain = {re.sub(r"\[\]|\(.*?\)", "", key) for key in keys}
    sections = {key.partition(".")[0] for key in plain if "." in key}
    named = " ".join(rule.keys for rule in RULES)
    named += " ".join(code for page in PAGES for code in re.findall(r"`([^`\n]+)`", page.read_text()))
    words = re.findall(r"\b[a-z]+(?:\.[a-z_]+)+\b(?!\()", named)
    found = {word for word in words if word.partition(".")[0] in sections}
    files = {word for word in found if word.rpartition(".")[2] in SUFFIXES}
    assert len(found - files) > 30
    assert found - files <= plain


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path):
    """Every command of the tutorial in its order, stages with fewer steps; then its Python."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    environment = os.environ | {"PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    script = f"set -euxo pipefail\n{SHRUNK}\n{commands}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for made in ("runs/ppo/report.html", "comparison.html", "runs/dpo/model/config.json"):
        assert (tmp_path / "zoo" / made).is_file()
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    loaded = subprocess.run([sys.executable, "-c", python], cwd=tmp_path / "zoo", env=environment)
    assert loaded.returncode == 0
