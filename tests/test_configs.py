"""Every shipped configuration is valid, says what it is for, and points editors at a current schema."""

import json
import re
from pathlib import Path

import pytest

from rlhf_cli.config.load import LoadedConfig, load_config, render_resolved
from rlhf_cli.config.schema import json_schema
from rlhf_cli.config.stages import STAGES

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
# A name with an underscore in front is a part that others extend.
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if not path.name.startswith("_"))
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)")


def stage_of(path: Path) -> str:
    """Read the stage from the modeline, whose schema is `<stage>.schema.json`."""
    match = MODELINE.fullmatch(path.read_text().splitlines()[0])
    assert match, f"{path}: the first line is no modeline"
    schema = (path.parent / match[1]).resolve()
    assert schema.parent == CONFIGS / "schema", f"{path}: no such schema: {schema}"
    return schema.name.removesuffix(".schema.json")


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.fixture(params=RECIPES, ids=name_of)
def recipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    monkeypatch.chdir(ROOT)
    for variable in ("QUICKSTART", "RUNS"):
        monkeypatch.delenv(variable, raising=False)
    return load_config(stage_of(request.param), request.param)


def test_the_recipes_are_there():
    stages = {stage: {path.parent.name for path in RECIPES if stage_of(path) == stage} for stage in STAGES}
    assert all({"hh", "quickstart"} <= folders for folders in stages.values())


def test_a_resolved_recipe_loads_to_the_same_tree(recipe: LoadedConfig, tmp_path: Path):
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(render_resolved(recipe))
    again = load_config(recipe.stage, resolved)
    assert again.tree == recipe.tree
    assert again.digest == recipe.digest


def test_run_directories_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for variable in ("QUICKSTART", "RUNS"):
        monkeypatch.setenv(variable, str(tmp_path / "a b"))
    for path in RECIPES:
        loaded = load_config(stage_of(path), path)
        assert loaded.config.run_dir.startswith(str(tmp_path / "a b")), path


def test_files_named_in_recipes_exist(recipe: LoadedConfig):
    named = re.findall(r"configs/[\w/.-]+\w", json.dumps(recipe.tree))
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_the_header_says_purpose_command_hardware_memory(path: Path):
    header = path.read_text().partition("\n\n")[0]
    for word in ("Purpose:", "Hardware:", "Memory:"):
        assert f"# {word}" in header
    command = re.search(r"rlhf (\S+) --config (\S+\.yaml)", header)
    assert command
    assert command[1] == stage_of(path)
    assert ROOT / command[2] == path


@pytest.mark.parametrize("path", [p for p in RECIPES if p.parent.name == "hh"], ids=name_of)
def test_the_hh_recipes_take_a_local_model_and_file(path: Path):
    stage = stage_of(path)
    model, data = (
        ("candidates.0.path", "prompts.0.path") if stage == "collect" else ("model.path", "data.train.0.path")
    )
    loaded = load_config(stage, path, [f"{model}=some/model", f"{data}=some/rows.jsonl"])
    assert {loaded.origins[model], loaded.origins[data]} == {"--set"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_schemas_are_current(stage: str):
    committed = CONFIGS / "schema" / f"{stage}.schema.json"
    current = json.dumps(json_schema(stage), indent=2) + "\n"
    assert committed.read_text() == current, f"rlhf schema {stage} > configs/schema/{committed.name}"
