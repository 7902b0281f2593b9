"""Thousands of spoilt configurations and files of rows: no traceback, documented exit codes, nothing written, no hang.

RLHF_FUZZ=5000 runs that many of each; `scripts/fuzz` does. A failing example is shown with the seed it came from.
"""

import os
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import spoilt_config, spoilt_data
from shell import DOCUMENTED
from tiny import Tiny

from rlhf_cli.cli import main
from rlhf_cli.commands.stages import STAGES
from rlhf_cli.config.load import load_config, render_resolved

NUM_EXAMPLES = int(os.environ.get("RLHF_FUZZ", "80"))
MOST_SECONDS = 20.0  # of one command; generous, since the machine may be busy
RECIPES = sorted(
    path for path in (Path(__file__).parents[2] / "rlhf_cli").rglob("*.yaml") if "recipes" in str(path)
)
TARGETS = ["preference", "prompt_completion", "messages", "prompts", "hh", "trl"]
fuzzed = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seeds = given(seed=st.integers(0, 2**63))


class Texts(list[str]):
    """A list that failures do not print."""

    def __repr__(self) -> str:
        return f"{len(self)} texts"


@pytest.fixture(scope="module")
def valid_configs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The recipes and the tests' own configurations, each also with every default written out."""
    folder = tmp_path_factory.mktemp("valid")
    texts = Texts()
    for stage in STAGES:
        tree = Tiny(folder).settings(stage) if stage != "collect" else COLLECT
        path = folder / f"{stage}.yaml"
        path.write_text(str(tree).replace("None", "null"))
        texts += [path.read_text(), render_resolved(load_config(stage, path))]
    texts += [recipe.read_text() for recipe in RECIPES]
    return texts


COLLECT = {"run_dir": "c", "prompts": [{"path": "p.jsonl"}], "candidates": [{"path": "m"}]}


def answer_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command; hold it to what every command promises."""
    began = time.monotonic()
    code = main(arguments)
    said = "".join(capsys.readouterr())
    assert code in DOCUMENTED, said
    assert "Traceback" not in said
    assert "internal:" not in said
    assert time.monotonic() - began < MOST_SECONDS
    return code


@fuzzed
@seeds
def test_spoilt_configurations(
    seed: int, work: Path, valid_configs: list[str], capsys: pytest.CaptureFixture[str]
):
    chance = Random(seed)
    path = work / "config.yaml"
    path.write_bytes(spoilt_config(valid_configs, chance))
    stage = chance.choice(list(STAGES))
    code = answer_of(["check", "--stage", stage, "--config", "config.yaml"], capsys)
    assert code in (0, 78)
    assert [file.name for file in work.iterdir()] == ["config.yaml"]
    if code == 0:
        loaded = load_config(stage, path)
        path.write_text(render_resolved(loaded), encoding="utf-8")
        again = load_config(stage, path)
        assert (again.tree, again.digest) == (loaded.tree, loaded.digest)


@fuzzed
@seeds
def test_spoilt_rows(seed: int, work: Path, capsys: pytest.CaptureFixture[str]):
    chance = Random(seed)
    name, content = spoilt_data(chance)
    (work / name).write_bytes(content)
    out = work / "out.jsonl"
    out.unlink(missing_ok=True)
    code = answer_of(["data", "convert", name, "out.jsonl", "--to", chance.choice(TARGETS)], capsys)
    assert code in (0, 2, 65)
    assert out.exists() == (code == 0)
    (work / name).unlink()
