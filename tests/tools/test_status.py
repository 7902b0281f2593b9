"""`rlhf status`: the runs of a project as their files tell them, whatever state they are in."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf_cli.cli import main
from rlhf_cli.errors import DivergedError
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.session import Run, StageResult, open_run


def spec(stage: str, run_dir: str, **tree: object) -> RunSpec:
    return RunSpec(stage, Path(run_dir), "digest", {"run_dir": run_dir, **tree}, argv=["rlhf", stage])


def finish(run: Run, **metrics: float) -> None:
    run.metrics.append(7, metrics)
    run.dir.model.mkdir(exist_ok=True)
    run.finish(StageResult(run.dir.model, 7, metrics))


def add_parents(run: Run, **parents: str) -> None:
    for role, path in parents.items():
        run.add_parent(role, path, "")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs, the second made from the first; names chosen so that the alphabet is no help."""
    monkeypatch.chdir(tmp_path)
    with open_run(spec("sft", "runs/z-sft")) as run:
        add_parents(run, model="some/base")
        finish(run, loss=0.25)
    with open_run(spec("ppo", "runs/a-ppo", data={"train": [{"path": "prompts.jsonl"}]})) as run:
        add_parents(run, model="runs/z-sft")
        finish(run, reward=1.5, kl=float("nan"))
    return tmp_path


def rlhf(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["status", *arguments]) == 0
    return capsys.readouterr().out


def rows(text: str) -> Sequence[Sequence[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_list_puts_parents_first_and_names_them(project, capsys):
    header, sft, ppo = rows(rlhf(capsys))
    assert header == ["run", "stage", "state", "step", "ago", "from", "newest"]
    assert [*sft[:4], *sft[-3:]] == ["runs/z-sft", "sft", "completed", "7", "some/base", "loss", "0.25"]
    assert [*ppo[:4], *ppo[-3:]] == ["runs/a-ppo", "ppo", "completed", "7", "z-sft", "reward", "1.5"]


def test_json_holds_the_same_and_is_one_line(project, capsys):
    (line,) = rlhf(capsys, "runs", "--json").splitlines()
    record = json.loads(line)
    sft, ppo = record["runs"]
    assert record["schema"] == "rlhf.status/1"
    assert (sft["state"], sft["metrics"], sft["command"]) == ("completed", {"loss": 0.25}, ["rlhf", "sft"])
    assert ppo["artifact"] == "runs/a-ppo/model"
    assert ppo["origins"] == [
        {"role": "model", "path": "runs/z-sft", "state": "completed", "newer": False},
        {"role": "data", "path": "prompts.jsonl", "state": None, "newer": False},
    ]


def test_origins_are_found_from_any_folder(project, capsys, monkeypatch):
    monkeypatch.chdir(project / "runs/a-ppo")
    page = rlhf(capsys, ".")
    assert "model     ../z-sft\n" in page
    assert "reward  1.5" in page


def test_a_parent_made_again_is_told(project, capsys):
    manifest = project / "runs/z-sft/manifest.json"
    record = json.loads(manifest.read_text())
    record["attempts"][-1]["ended"] = "2999-01-01T00:00:00+00:00"
    manifest.write_text(json.dumps(record))
    assert "runs/z-sft (made again since" in rlhf(capsys, "runs/a-ppo")


def test_states_of_runs_that_did_not_finish(project, capsys):
    with open_run(spec("dpo", "runs/live")) as run:
        run.metrics.append(3, {"accuracy": 0.75})
        assert "runs/live: dpo, running, step 3" in rlhf(capsys, "runs/live")
        run.dir.model.mkdir()
        record = run.dir.manifest.read_text()
        finish(run)
    Path("runs/live/manifest.json").write_text(record)  # as if the process had been killed then
    assert "dpo, killed, step 7" in rlhf(capsys, "runs/live")
    with pytest.raises(DivergedError), open_run(spec("sft", "runs/lost")) as run:
        raise DivergedError("loss is NaN")
    assert "failed with exit code 76" in rlhf(capsys, "runs/lost")


def test_runs_renamed_aside_are_left_out(project, capsys):
    Path("runs/z-sft").rename("runs/z-sft.old-1")
    assert [row[0] for row in rows(rlhf(capsys))[1:]] == ["runs/a-ppo"]


def test_a_damaged_manifest_does_not_hide_the_others(project, capsys):
    Path("runs/z-sft/manifest.json").write_text("{")
    assert main(["status"]) == 0
    streams = capsys.readouterr()
    assert "warning: runs/z-sft/manifest.json" in streams.err
    assert "runs/a-ppo" in streams.out
    assert main(["status", "runs/z-sft"]) == 73


def test_nothing_to_show(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rlhf(capsys) == ""
    assert json.loads(rlhf(capsys, "--json"))["runs"] == []
    assert main(["status", "none"]) == 66


def test_it_does_not_import_what_is_slow(project):
    program = (
        "import sys; from rlhf_cli.cli import main; main(['status']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
