"""What `rlhf launch` hands in, run by a real Slurm of one node that the tests start themselves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, start_cluster, wait_until, what_is_missing
from tiny import Settings, Tiny

from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import read_manifest
from rlhf_cli.tools.slurm import Resources, Step, chain_files, write_scripts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())]

# A reward that waits, in the first two attempts, until the test has seen the signal arrive.
HOLD = """
import os, time
from pathlib import Path

attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))

def zero(prompt, completion, extra):
    if attempt < 2 and list(Path("ppo/checkpoints").glob("step-*")):
        Path(f"holding-{attempt}").touch()
        while not Path(f"go-{attempt}").exists():
            time.sleep(0.02)
    return 0.0
"""
# A stage that says that it runs, then waits for a signal and ends as one with a checkpoint does.
WAITING = f"""#!{sys.executable}
import os, signal, sys, time

for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda *_: sys.exit(75))
open(f"started-{{os.environ.get('SLURM_RESTART_COUNT', '0')}}-{{os.environ['SLURM_PROCID']}}", "w").close()
while sys.argv[1] != "collect":
    time.sleep(1)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        cluster.environment.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
        yield cluster


def launch(cluster: Cluster, work: Path, stages: dict[str, Settings]) -> list[int]:
    """Write the files of stages and launch them as a chain, as a user would; return the jobs."""
    for stage, settings in stages.items():
        (work / f"{stage}.yaml").write_text(f"# rlhf: {stage}\n{json.dumps(settings)}")
    command = [sys.executable, "-m", "rlhf_cli", "launch", "--slurm", *(f"{stage}.yaml" for stage in stages)]
    return [int(job) for job in cluster.run(*command, cwd=work).split()]


def log_of(work: Path, job: int) -> str:
    return "".join(path.read_text() for path in work.glob(f"slurm-*-{job}.log"))


def five_stages(tiny: Tiny) -> dict[str, Settings]:
    votes = [{"path": "collect"}]
    scores = [{"kind": "model", "path": "train-rm"}, {"kind": "function", "function": "hold.py:zero"}]
    return {
        "sft": tiny.settings("sft"),
        "collect": {
            "run_dir": "collect",
            "prompts": [{"path": tiny.prompts}],
            "candidates": [{"path": "sft", "temperature": 0.7}, {"path": "sft", "temperature": 1.2}],
            "labeler": {"kind": "rule", "function": "rlhf_cli.preference.rules:shorter"},
            "generation": {"max_new_tokens": 8},
        },
        "train-rm": tiny.settings("train-rm", model__path="sft", data__train=votes),
        "ppo": tiny.settings("ppo", model__path="sft", reward=scores),
        "dpo": tiny.settings("dpo", model__path="sft", data__train=votes),
    }


def test_a_chain_is_preempted_twice_and_runs_to_its_end(cluster: Cluster, work: Path, tiny: Tiny):
    (work / "hold.py").write_text(HOLD)
    stages = five_stages(tiny)
    jobs = dict(zip(stages, launch(cluster, work, stages), strict=True))
    ppo = jobs["ppo"]

    def stop(attempt: int, *command: str) -> None:
        holding = work / f"holding-{attempt}"
        wait_until(lambda: holding.exists() or cluster.job(ppo).state == "CANCELLED", "ppo has not begun")
        assert holding.exists(), [log_of(work, job) for job in jobs.values()]
        cluster.run(*command, cwd=work)
        wait_until(lambda: log_of(work, ppo).count("stopping at") == attempt + 1, "no signal has arrived")
        (work / f"go-{attempt}").touch()
        cluster.wait_for_requeue(ppo, attempt + 1)

    stop(0, "sbatch", "--partition=high", "--wrap=true")  # a job that is more important
    stop(1, "scancel", "--signal=USR2", str(ppo))  # what --signal=USR2@180 does in its own time
    ends = {stage: cluster.wait_for_end(job) for stage, job in jobs.items()}
    assert {stage: end.state for stage, end in ends.items()} == dict.fromkeys(stages, "COMPLETED"), log_of(
        work, ppo
    )
    manifests = {stage: read_manifest(RunDir(work / stage)) for stage in stages}
    assert {stage: it and it.status for stage, it in manifests.items()} == dict.fromkeys(stages, "completed")
    attempts = manifests["ppo"].attempts if manifests["ppo"] else []
    assert [it.resumed_from_step for it in attempts] == [None, 2, 2]
    assert [it.slurm.get("SLURM_RESTART_COUNT") for it in attempts] == [None, "1", "2"]
    assert (work / "dpo/model/model.safetensors").exists()


def test_a_stage_that_fails_stops_the_chain(cluster: Cluster, work: Path, tiny: Tiny):
    nothing = tiny.settings("sft", data__train=[{"path": "none.jsonl"}])
    behind = {"dpo": tiny.settings("dpo", model__path="sft"), "ppo": tiny.settings("ppo", model__path="dpo")}
    first, *others = launch(cluster, work, {"sft": nothing, **behind})
    end = cluster.wait_for_end(first)
    assert (end.state, end.exit_code, end.restarts) == ("FAILED", "66:0", 0), log_of(work, first)
    assert [cluster.wait_for_end(job).state for job in others] == ["CANCELLED", "CANCELLED"]
    assert not (work / "dpo").exists()


@pytest.fixture
def waiting(cluster: Cluster, work: Path) -> tuple[list[int], Path]:
    """Two jobs of two processes each: one that waits for a signal, and a collection behind it."""
    programs = work / "bin"
    programs.mkdir()
    (programs / "rlhf").write_text(WAITING)
    (programs / "rlhf").chmod(0o755)
    steps = [Step("sft", "a.yaml"), Step("collect", "b.yaml")]
    resources = Resources(processes_per_node=2, max_requeues=1, options=("comment=it's two",))
    write_scripts(chain_files(work / "slurm", steps, resources, root=work))
    path = f"{programs}:{cluster.environment['PATH']}"
    said = Cluster(cluster.environment | {"PATH": path}).run("slurm/submit.sh", cwd=work)
    jobs = [int(job) for job in said.split()]
    wait_until(lambda: (work / "started-0-1").exists() and (work / "started-0-0").exists(), "nothing runs")
    return jobs, work


def test_75_of_many_processes_requeues_the_job_as_often_as_it_may(
    cluster: Cluster, waiting: tuple[list[int], Path]
):
    (job, behind), work = waiting
    cluster.run("scancel", "--signal=USR2", str(job))
    cluster.wait_for_requeue(job, 1)
    assert cluster.job(behind).state == "PENDING"
    wait_until(
        lambda: (work / "started-1-1").exists() and (work / "started-1-0").exists(), "it does not go on"
    )
    cluster.run("scancel", "--signal=USR2", str(job))
    end = cluster.wait_for_end(job)
    assert (end.state, end.exit_code, end.restarts) == ("FAILED", "75:0", 1)
    assert cluster.wait_for_end(behind).state == "CANCELLED"
    assert "requeue 1 of 1" in log_of(work, job)


def test_a_job_that_somebody_cancels_stays_cancelled(cluster: Cluster, waiting: tuple[list[int], Path]):
    (job, behind), work = waiting
    cluster.run("scancel", str(job))
    wait_until(lambda: "not requeued from here" in log_of(work, job), "the script has not ended")
    assert [cluster.wait_for_end(it).state for it in (job, behind)] == ["CANCELLED", "CANCELLED"]
    assert cluster.job(job).restarts == 0


def test_a_job_that_slurm_requeues_is_not_requeued_again(cluster: Cluster, waiting: tuple[list[int], Path]):
    (job, behind), work = waiting
    cluster.run("scontrol", "requeue", str(job))
    cluster.wait_for_requeue(job, 1)
    wait_until(
        lambda: (work / "started-1-1").exists() and (work / "started-1-0").exists(), "it does not go on"
    )
    assert "1 of 1" not in log_of(work, job)
    cluster.run("scancel", str(job))
    assert [cluster.wait_for_end(it).state for it in (job, behind)] == ["CANCELLED", "CANCELLED"]


def test_a_collection_is_one_process_on_a_job_of_two(cluster: Cluster, waiting: tuple[list[int], Path]):
    (job, _), work = waiting
    cluster.run("scancel", str(job))
    number = subprocess.run(
        ["sbatch", "--parsable", "slurm/stage.sbatch", "collect", "b.yaml"],
        cwd=work,
        env=cluster.environment | {"PATH": f"{work}/bin:{cluster.environment['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cluster.wait_for_end(job)
    for path in work.glob("started-*"):
        path.unlink()
    end = cluster.wait_for_end(int(number))
    assert end.state == "COMPLETED", log_of(work, int(number))
    assert [path.name for path in work.glob("started-*")] == ["started-0-0"]
