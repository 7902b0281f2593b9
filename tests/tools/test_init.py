"""`rlhf init`: every project it makes is valid, stands on its own, and runs."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.cli import main
from rlhf_cli.quickstart.make import Sizes, write
from rlhf_cli.tools.init import TEMPLATES, make_project
from rlhf_cli.tools.slurm import Resources, chain_files

RECIPES = Path(__file__).parents[2] / "configs"


@pytest.fixture
def project(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine", "--template", request.param]) == 0
    monkeypatch.chdir("mine")
    return tmp_path / "mine"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


every_template = pytest.mark.parametrize("project", list(TEMPLATES), indirect=True)


@every_template
def test_files_are_valid_commented_and_free_of_where_they_come_from(project: Path, capsys):
    recipes = sorted(project.glob("[!_]*.yaml"))
    assert recipes
    for path in recipes:
        text = path.read_text()
        assert main(["check", "--config", path.name]) == 0, capsys.readouterr().err
        schema = text.partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
        assert json.loads((project / schema).read_text())["properties"]["run_dir"]
        assert "# Purpose:" in text
        assert "configs/" not in text
        assert "${env" not in text
        assert f"--config {path.name}" in text


@every_template
def test_scripts_run_every_file_in_order_and_can_be_executed(project: Path):
    for name in ("run.sh", "slurm/submit.sh"):
        script = project / name
        assert script.stat().st_mode & stat.S_IXUSR
        places = [script.read_text().index(path.name) for path in project.glob("[!_]*.yaml")]
        assert len(places) >= 2
        subprocess.run(["bash", "-n", str(script)], check=True)


@every_template
def test_every_file_of_the_recipe_comes_along(project: Path):
    recipes = [names_in(RECIPES / template) - {"__pycache__"} for template in TEMPLATES]
    assert any(names <= names_in(project) for names in recipes)


def test_it_writes_into_an_empty_directory_only(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path)]) == 73
    assert names_in(tmp_path) == {"notes.txt"}
    assert main(["init", str(tmp_path / "notes.txt")]) == 73
    assert main(["init", str(tmp_path / "new"), "--template", "zoo"]) == 2
    assert "quickstart" in capsys.readouterr().err


def test_stdout_is_the_directory(tmp_path, capsys):
    folder = tmp_path / "new"
    assert main(["init", str(folder), "--template", "sentiment"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    folder = tmp_path / "other"
    assert main(["init", str(folder), "--template", "sentiment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifact"] == str(folder)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_slurm_jobs_are_those_of_launch(name: str, tmp_path: Path):
    make_project(tmp_path, name, None)
    files = chain_files(tmp_path / "slurm", TEMPLATES[name].steps, Resources(), root=tmp_path)
    assert {path: path.read_text() for path in files} == files
    assert len(files) == 2


@pytest.mark.slow
def test_the_quickstart_project_runs_to_its_end(tmp_path: Path):
    """Make it with few rows, set two numbers down by hand as a user would, and start run.sh."""
    project = tmp_path / "zoo"
    sizes = Sizes(base=48, demonstrations=32, collect_prompts=48, ppo_prompts=16, eval_prompts=4)
    make_project(project, "quickstart", lambda out: write(out, seed=0, sizes=sizes))
    for name, old, new in (("ppo.yaml", "iterations: 14", "iterations: 1"), ("ppo.yaml", "128", "8")):
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [project / "run.sh"], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines()[-6:]] == ["completed"] * 6
    assert (project / "runs/ppo/model/model.safetensors").exists()
