"""`rlhf launch`: what it hands in and what it refuses, with a stand-in for sbatch."""

import json
import subprocess
from pathlib import Path

import pytest
from slurm_stand_ins import lines_of, put_into_path

from rlhf_cli.cli import main


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_into_path(tmp_path, monkeypatch)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an awkward name, and the files of two stages in it."""
    folder = tmp_path / "it's a $(project)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "my sft.yaml").write_text(
        "# rlhf: sft\nrun_dir: a\nmodel: {path: m}\ndata: {train: [{path: d.jsonl}]}\n"
    )
    (folder / "dpo.yaml").write_text(
        "# rlhf: dpo\nrun_dir: b\nmodel: {path: a}\ndata: {train: [{path: d.jsonl}]}\n"
    )
    return folder


LAUNCH = ["launch", "--slurm", "my sft.yaml", "dpo.yaml"]


# What is handed in.


def test_jobs_wait_for_each_other_and_their_numbers_are_printed(project: Path, calls: Path, capsys):
    assert main([*LAUNCH, "--after", "17"]) == 0
    assert capsys.readouterr().out == "1\n2\n"
    first, second = lines_of(calls, "sbatch")
    here = project / "slurm"
    tail = f"--kill-on-invalid-dep=yes|{here}/stage.sbatch"
    assert first == f"sbatch|--parsable|--job-name=my sft|--dependency=afterok:17|{tail}|sft|my sft.yaml"
    assert second == f"sbatch|--parsable|--job-name=dpo|--dependency=afterok:1|{tail}|dpo|dpo.yaml"


def test_options_of_the_script_go_to_every_job_and_their_dependency_to_the_first(project: Path, calls: Path):
    assert main([*LAUNCH, "--out", "../jobs"]) == 0
    calls.write_text("")
    subprocess.run(["../jobs/submit.sh", "--dependency=singleton"], check=True, capture_output=True)
    first, second = lines_of(calls, "sbatch")
    assert "|--dependency=singleton|--kill-on" in first
    assert "|--dependency=singleton|--dependency=afterok:1|--kill-on" in second


def test_json_names_every_job(project: Path, calls: Path, capsys):
    assert main([*LAUNCH, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "rlhf.launch/1"
    assert told["jobs"][1] == {"job": 2, "stage": "dpo", "config": "dpo.yaml"}


def test_what_is_asked_for_stands_in_the_job_file(project: Path, calls: Path):
    options = (
        "--nodes 2 --gpus 4 --time 4:00:00 --partition gpu --account lab --sbatch mem=64G --sbatch exclusive"
    )
    assert main([*LAUNCH, *options.split(), "--sbatch", "comment=it's mine"]) == 0
    text = (project / "slurm/stage.sbatch").read_text()
    asked = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert asked == [
        "nodes=2", "ntasks-per-node=4", "requeue", "open-mode=append", "output=slurm-%x-%j.log", "signal=USR2@180",
        "gpus-per-node=4", "time=4:00:00", "partition=gpu", "account=lab", "mem=64G", "exclusive",
        """comment='it'"'"'s mine'""",
    ]  # fmt: skip


def test_processes_may_differ_from_gpus(project: Path, calls: Path):
    assert main([*LAUNCH, "--gpus", "4", "--processes", "1", "--max-requeues", "3"]) == 0
    text = (project / "slurm/stage.sbatch").read_text()
    assert "--ntasks-per-node=1\n" in text
    assert "max_requeues=3\n" in text


def test_a_dry_run_needs_no_slurm_and_writes_nothing(project: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    before = sorted(project.iterdir())
    assert main([*LAUNCH, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert sorted(project.iterdir()) == before
    assert main([*LAUNCH, "--dry-run", "--json"]) == 0
    scripts = json.loads(capsys.readouterr().out)["scripts"]
    assert list(scripts) == ["slurm/stage.sbatch", "slurm/submit.sh"]
    assert all(text.strip() in shown for text in scripts.values())
    assert "submit sft 'my sft.yaml'\nsubmit dpo dpo.yaml\n" in scripts["slurm/submit.sh"]


# What is refused, and how.


def test_without_sbatch_nothing_is_written(project: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(LAUNCH) == 69
    assert "--dry-run" in capsys.readouterr().err
    assert not (project / "slurm").exists()


def test_a_refusal_of_sbatch_is_passed_on_with_what_is_queued(
    project: Path, calls: Path, monkeypatch, capsys
):
    monkeypatch.setenv("REFUSED", "2")
    assert main(LAUNCH) == 69
    said = capsys.readouterr()
    assert "sbatch refused job 2 of 2: " in said.err
    assert "no such partition" in said.err
    assert "scancel 1\n" in said.err
    assert said.out == ""
    calls.write_text("")
    monkeypatch.setenv("REFUSED", "1")
    assert main(LAUNCH) == 69
    assert "nothing was queued" in capsys.readouterr().err
    assert len(lines_of(calls, "sbatch")) == 1


COLLECT = """# rlhf: collect
run_dir: c
prompts: [{{path: p}}]
candidates: [{{path: m}}]
labeler: {{kind: {who}}}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dpo.yaml"], 2, "--slurm"),
        (["--slurm"], 2, "FILE"),
        (["--slurm", "none.yaml"], 66, "none.yaml"),
        (["--slurm", "dpo.yaml", "./dpo.yaml"], 2, "the same run_dir"),
        (["--slurm", "dpo.yaml", "vote.yaml"], 2, "at a terminal"),
        (["--slurm", "dpo.yaml", "unknown.yaml"], 2, "# rlhf: STAGE"),
        (["--slurm", "dpo.yaml", "wrong.yaml"], 78, "wrong.yaml:2:1: error: optimm"),
        (["--slurm", "dpo.yaml", "--sbatch", "--mem=1G"], 2, "without dashes"),
        (["--slurm", "dpo.yaml", "--sbatch", "mem=1\n#SBATCH --x"], 2, "on one line"),
        (["--slurm", "dpo.yaml", "--sbatch", ""], 2, "no option of sbatch"),
        (["--slurm", "dpo.yaml", "--nodes", "0"], 2, "--nodes"),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(
    arguments, code, words, project: Path, calls: Path, capsys
):
    (project / "vote.yaml").write_text(COLLECT.format(who="terminal"))
    (project / "unknown.yaml").write_text("run_dir: u\n")
    (project / "wrong.yaml").write_text("# rlhf: sft\noptimm: {}\n")
    assert main(["launch", *arguments]) == code
    assert words in capsys.readouterr().err
    assert not lines_of(calls, "sbatch")
    assert not (project / "slurm").exists()


def test_a_collection_that_asks_nobody_at_a_terminal_is_launched(project: Path, calls: Path):
    (project / "vote.yaml").write_text(COLLECT.format(who="web"))
    assert main(["launch", "--slurm", "vote.yaml"]) == 0
    assert lines_of(calls, "sbatch")[0].endswith("|collect|vote.yaml")
