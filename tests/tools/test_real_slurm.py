"""What `rlhf launch` hands in, run by a real Slurm of one node that the tests start themselves."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, start_cluster, wait_until, what_is_missing
from tiny import Settings, Tiny

from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import read_manifest
from rlhf_cli.tools.slurm import Resources, Step, chain_files, write_scripts
from scripts.slurm import write

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


def launch(cluster: Cluster, work: Path, stages: dict[str, Settings], *options: str) -> list[int]:
    """Write the files of stages and launch them as a chain, as a user would; return the jobs."""
    for stage, settings in stages.items():
        (work / f"{stage}.yaml").write_text(f"# rlhf: {stage}\n{json.dumps(settings)}")
    command = [sys.executable, "-m", "rlhf_cli", "launch", "--slurm", *(f"{stage}.yaml" for stage in stages)]
    return [int(job) for job in cluster.run(*command, *options, cwd=work).split()]


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


@pytest.mark.timeout(1200)
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


def test_two_processes_of_a_job_train_one_model(cluster: Cluster, work: Path, tiny: Tiny):
    settings = tiny.settings("sft", distributed={"strategy": "fsdp"})
    (job,) = launch(cluster, work, {"sft": settings}, "--processes", "2")
    assert cluster.wait_for_end(job).state == "COMPLETED", log_of(work, job)
    manifest = read_manifest(RunDir(work / "sft"))
    assert manifest is not None
    assert manifest.identity["world_size"] == "2"
    assert (work / "sft" / "ranks" / "1" / "metrics.jsonl").exists()


def test_a_stage_that_fails_stops_the_chain(cluster: Cluster, work: Path, tiny: Tiny):
    nothing = tiny.settings("sft", data__train=[{"path": "none.jsonl"}])
    behind = {"dpo": tiny.settings("dpo", model__path="sft"), "ppo": tiny.settings("ppo", model__path="dpo")}
    first, *others = launch(cluster, work, {"sft": nothing, **behind})
    end = cluster.wait_for_end(first)
    assert (end.state, end.exit_code, end.restarts) == ("FAILED", "66:0", 0), log_of(work, first)
    assert [cluster.wait_for_end(job).state for job in others] == ["CANCELLED", "CANCELLED"]
    assert not (work / "dpo").exists()


def with_programs(cluster: Cluster, folder: Path, rlhf: str) -> Cluster:
    """Give a cluster whose jobs find `rlhf` before the real one."""
    folder.mkdir()
    (folder / "rlhf").write_text(rlhf)
    (folder / "rlhf").chmod(0o755)
    return Cluster(cluster.environment | {"PATH": f"{folder}:{cluster.environment['PATH']}"})


def wait_for_both(work: Path, *, attempt: int) -> None:
    wanted = {f"started-{attempt}-{process}" for process in (0, 1)}
    wait_until(lambda: wanted <= {path.name for path in work.iterdir()}, "two processes do not run")


@pytest.fixture
def partition() -> str:
    return "batch"


@pytest.fixture
def waiting(cluster: Cluster, work: Path, partition: str) -> tuple[list[int], Path]:
    """Two jobs of two processes each: one that waits for a signal, and a collection behind it."""
    told = with_programs(cluster, work / "bin", WAITING)
    steps = [Step("sft", "a.yaml"), Step("collect", "b.yaml")]
    resources = Resources(processes_per_node=2, max_requeues=1, options=("comment=it's two",))
    write_scripts(chain_files(work / "slurm", steps, resources, root=work))
    said = told.run("slurm/submit.sh", f"--partition={partition}", cwd=work)
    jobs = [int(job) for job in said.split()]
    wait_for_both(work, attempt=0)
    assert "Comment=it's two" in cluster.run("scontrol", "show", "job", str(jobs[0]))
    return jobs, work


def test_75_of_many_processes_requeues_the_job_as_often_as_it_may(
    cluster: Cluster, waiting: tuple[list[int], Path]
):
    (job, behind), work = waiting
    cluster.run("scancel", "--signal=USR2", str(job))
    cluster.wait_for_requeue(job, 1)
    assert cluster.job(behind).state == "PENDING"
    wait_for_both(work, attempt=1)
    cluster.run("scancel", "--signal=USR2", str(job))
    end = cluster.wait_for_end(job)
    assert (end.state, end.exit_code, end.restarts) == ("FAILED", "75:0", 1)
    assert cluster.wait_for_end(behind).state == "CANCELLED"
    assert "that was done 1 times" in log_of(work, job)


def test_a_job_that_somebody_cancels_stays_cancelled(cluster: Cluster, waiting: tuple[list[int], Path]):
    (job, behind), work = waiting
    cluster.run("scancel", str(job))
    wait_until(lambda: "not requeued: " in log_of(work, job), "the script has not ended")
    assert [cluster.wait_for_end(it).state for it in (job, behind)] == ["CANCELLED", "CANCELLED"]
    assert cluster.job(job).restarts == 0


@pytest.mark.parametrize("partition", ["poor"])
def test_a_job_that_slurm_preempts_and_requeues_by_itself_goes_on(
    cluster: Cluster, waiting: tuple[list[int], Path]
):
    (job, behind), work = waiting
    cluster.run("sbatch", "--partition=high", "--wrap=true", cwd=work)
    cluster.wait_for_requeue(job, 1)
    wait_for_both(work, attempt=1)
    assert cluster.job(behind).state == "PENDING"
    cluster.run("scancel", str(job))
    assert [cluster.wait_for_end(it).state for it in (job, behind)] == ["CANCELLED", "CANCELLED"]


def test_the_chain_of_the_repository_runs_its_stages_in_order(cluster: Cluster, work: Path):
    told = with_programs(cluster, work / "bin", f'#!/bin/sh\ntest -f "$3" && echo "$1 $3" >> {work}/ran')
    jobs = told.run(str(write.HERE / "chain.sh"), f"--output={work}/%x.log").split()
    assert [cluster.wait_for_end(int(job)).state for job in jobs] == ["COMPLETED"] * 6
    assert (work / "ran").read_text().splitlines() == [f"{step.stage} {step.file}" for step in write.CHAIN]


def test_a_collection_is_one_process_on_a_job_of_two(cluster: Cluster, work: Path):
    told = with_programs(cluster, work / "bin", WAITING)
    write_scripts(
        chain_files(work / "slurm", [Step("collect", "b.yaml")], Resources(processes_per_node=2), root=work)
    )
    job = int(told.run("slurm/submit.sh", cwd=work))
    assert cluster.wait_for_end(job).state == "COMPLETED", log_of(work, job)
    assert [path.name for path in work.glob("started-*")] == ["started-0-0"]
