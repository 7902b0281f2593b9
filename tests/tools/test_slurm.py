"""The scripts of `rlhf launch`: what a job does, with stand-ins for the programs of Slurm."""

import shutil
import subprocess
from pathlib import Path

import pytest
from slurm_stand_ins import lines_of, put_into_path

from rlhf_cli.tools.slurm import Resources, Step, chain_files, job_script, submit_script, write_scripts
from scripts.slurm import write


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_into_path(tmp_path, monkeypatch)


# What a job does.


def run_job(folder: Path, *, stage: str = "sft", max_requeues: int = 2) -> "subprocess.CompletedProcess[str]":
    script = folder / "job.sbatch"
    script.write_text(job_script(Resources(max_requeues=max_requeues), name=script.name))
    return subprocess.run(
        ["bash", str(script), stage, "my sft.yaml"], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("code", [0, 1, 65, 76, 137])
def test_the_exit_code_of_a_stage_is_that_of_its_job(code, tmp_path: Path, calls: Path, monkeypatch):
    monkeypatch.setenv("STAGE_ENDS_WITH", str(code))
    assert run_job(tmp_path).returncode == code
    assert lines_of(calls, "srun") == ["srun|--kill-on-bad-exit=0|rlhf|sft|--config|my sft.yaml"]
    assert not lines_of(calls, "squeue")
    assert lines_of(calls, "scontrol") == ["scontrol|show|hostnames|node[7-8]"]


@pytest.mark.parametrize(
    ("state", "requeues_before", "is_requeued"),
    [
        ("RUNNING None", None, True),
        ("RUNNING None", "1", True),
        ("RUNNING None", "2", False),
        ("COMPLETING TimeLimit", "1", True),  # the checkpoint came a moment late
        ("COMPLETING TimeLimit", "2", False),
        ("COMPLETING None", None, False),  # scancel
        ("", None, False),
    ],
)
def test_an_interrupted_job_is_requeued_at_most_so_often(
    state, requeues_before, is_requeued, tmp_path: Path, calls: Path, monkeypatch
):
    monkeypatch.setenv("STAGE_ENDS_WITH", "75")
    monkeypatch.setenv("STATE", state)
    if requeues_before:
        monkeypatch.setenv("SLURM_RESTART_COUNT", requeues_before)
    done = run_job(tmp_path)
    assert done.returncode == 75
    assert ("scontrol|requeue|40041" in lines_of(calls, "scontrol")) is is_requeued
    assert ("not requeued: " in done.stderr) is not is_requeued


def test_a_job_may_be_told_never_to_requeue(tmp_path: Path, calls: Path, monkeypatch):
    monkeypatch.setenv("STAGE_ENDS_WITH", "75")
    assert run_job(tmp_path, max_requeues=0).returncode == 75
    assert "scontrol|requeue|40041" not in lines_of(calls, "scontrol")


def test_processes_learn_where_to_meet_and_get_the_cpus_of_the_job(tmp_path: Path, calls: Path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    srun = Path(tmp_path / "bin/srun")
    srun.write_text(srun.read_text().replace("exit", 'echo "$MASTER_ADDR:$MASTER_PORT"; exit'))
    assert run_job(tmp_path).stdout == "node7:20041\n"
    assert "|--cpus-per-task=6|rlhf|" in lines_of(calls, "srun")[0]


def test_a_collection_is_one_process_however_many_the_job_has(tmp_path: Path, calls: Path):
    assert run_job(tmp_path, stage="collect").returncode == 0
    assert "|--nodes=1|--ntasks=1|rlhf|collect|" in lines_of(calls, "srun")[0]


def test_a_job_without_rlhf_or_without_its_file_says_so(tmp_path: Path, calls: Path):
    script = tmp_path / "job.sbatch"
    script.write_text(job_script(Resources(), name=script.name))
    done = subprocess.run(["bash", str(script), "sft"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "a YAML file" in done.stderr
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, str(script), "sft", "x"], env={"PATH": ""}, capture_output=True, text=True)
    assert (done.returncode, lines_of(calls, "srun")) == (69, [])
    assert "activate its environment" in done.stderr


# The scripts themselves.


def test_the_scripts_of_the_repository_are_current():
    assert [path.name for path, text in write.wanted().items() if path.read_text() != text] == []


def test_the_chain_of_the_repository_has_the_stages_of_its_files():
    text = submit_script(write.CHAIN, job_file="one_process.sbatch", up="../..")
    for step in write.CHAIN:
        assert (write.HERE / "../.." / step.file).exists()
        assert f"\nsubmit {step.stage} {step.file}\n" in text


@pytest.mark.parametrize("by_hand", [False, True])
def test_every_script_is_good_shell(tmp_path: Path, by_hand: bool):
    steps = [Step("collect", "it's $HOME `x`.yaml", by_hand=by_hand), Step("ppo", "ppo.yaml")]
    folder = tmp_path / "a b"
    files = chain_files(folder, steps, Resources(options=("comment=a 'b'",)), root=tmp_path, after=3)
    write_scripts(files)
    for path in files:
        subprocess.run(["bash", "-n", str(path)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", "--severity=warning", str(path)], check=True)
