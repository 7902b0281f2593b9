"""A Slurm of one node on this machine, with ports and files of its own; it needs root, slurmctld and slurmd."""

import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun")
DONE = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}

# No accounting, no munge, no cgroups. A job of `high` sends others away: those of `batch` may take GraceTime.
_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=120
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=DEFAULT Nodes={host} MaxTime=INFINITE State=UP OverSubscribe=EXCLUSIVE
PartitionName=batch Default=YES PriorityTier=1 GraceTime=300
PartitionName=poor PriorityTier=1 GraceTime=0
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""


def what_is_missing() -> str:
    """Say why no cluster can be started here; nothing where one can."""
    if os.geteuid() != 0:
        return "only root starts a Slurm"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"no {', '.join(missing)} on this machine" if missing else ""


@dataclass(frozen=True)
class Job:
    """What `scontrol show job` says of a job."""

    state: str
    exit_code: str
    restarts: int
    reason: str


@dataclass(frozen=True)
class Cluster:
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: int) -> Job:
        facts = dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", str(number))))
        return Job(facts["JobState"], facts["ExitCode"], int(facts["Restarts"]), facts["Reason"])

    def wait_for_requeue(self, number: int, times: int) -> None:
        """Wait until a job is back in the queue, and have it start in two seconds instead of two minutes.

        In the second in which its credential was revoked, the node would refuse to start it.
        """
        wait_until(
            lambda: self.job(number).state == "PENDING" and self.job(number).restarts == times,
            f"job {number} is not requeued",
        )
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now+2")

    def wait_for_end(self, number: int) -> Job:
        wait_until(lambda: self.job(number).state in DONE, f"job {number} has not ended")
        return self.job(number)


def wait_until(reached: Callable[[], bool], otherwise: str, seconds: float = 500) -> None:
    """Look again and again; fail after a time that only something stuck takes."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


@contextmanager
def start_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the controller and the node; stop them behind the block."""
    host = platform.node().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    ports = free_ports(2)
    conf.write_text(_CONF.format(host=host, folder=folder, controller_port=ports[0], node_port=ports[1]))
    environment = {name: it for name, it in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    cluster = Cluster(environment | {"SLURM_CONF": str(conf)})
    with ExitStack() as stack:
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            stack.enter_context(running([*command, "-f", str(conf)], cluster.environment))
        wait_until(
            lambda: is_idle(cluster), (folder / "slurmctld.log").read_text() if False else "no node is idle"
        )
        yield cluster
        # Jobs would outlive both programs.
        cluster.run("scancel", "--user=root")
        wait_until(lambda: not cluster.run("squeue", "--noheader"), "jobs are left")


def is_idle(cluster: Cluster) -> bool:
    asked = ["sinfo", "--noheader", "--format=%T"]
    said = subprocess.run(asked, env=cluster.environment, capture_output=True, text=True)
    return said.stdout.split() == ["idle"]


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for it in sockets:
            it.bind(("127.0.0.1", 0))
        return [it.getsockname()[1] for it in sockets]
