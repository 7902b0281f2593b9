"""Stages as Slurm jobs: the job file that all of them share, and the script that hands in a chain.

`rlhf launch`, the projects of `rlhf init` and `scripts/slurm` are all written by this.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.errors import UnavailableError, UsageError

_PAGES = Path(__file__).parent / "templates" / "slurm"


@dataclass(frozen=True)
class Step:
    """A stage with its file; `by_hand` where a person is asked."""

    stage: str
    file: str
    by_hand: bool = False


@dataclass(frozen=True)
class Resources:
    """What every job of a chain asks for.

    `options` are further ones of sbatch, without their dashes: `partition=gpu`. They win over what is set here.
    """

    nodes: int = 1
    processes_per_node: int = 1
    max_requeues: int = 50
    options: tuple[str, ...] = ()


def job_script(resources: Resources, *, name: str) -> str:
    """Write the job file `name`, which takes a stage and its YAML file as arguments.

    Raises UsageError for an option that no line of a job file can hold.
    """
    directives = (
        f"nodes={resources.nodes}",
        f"ntasks-per-node={resources.processes_per_node}",
        "requeue",
        "open-mode=append",
        "output=slurm-%x-%j.log",
        "signal=USR2@180",  # no `B:`, or it would reach the shell alone
        *map(_directive, resources.options),
    )
    return _render("stage.sbatch", directives=directives, name=name, max_requeues=resources.max_requeues)


def submit_script(steps: Sequence[Step], *, job_file: str, up: str, after: int | None = None) -> str:
    """Write the script that hands in `steps`, each after the one before, the first after job `after`.

    `job_file` lies beside the script; `up` leads from there to the directory that the files of `steps` start from.
    """
    return _render("submit.sh", steps=steps, job_file=job_file, up=up, after=after or "")


def chain_files(
    folder: Path, steps: Sequence[Step], resources: Resources, *, root: Path, after: int | None = None
) -> dict[Path, str]:
    """Give the job file and the script of a chain, to lie in `folder`; the files of `steps` start from `root`."""
    job_file = folder / "stage.sbatch"
    up = os.path.relpath(root.resolve(), folder.resolve())
    return {
        job_file: job_script(resources, name=os.path.relpath(job_file, root)),
        folder / "submit.sh": submit_script(steps, job_file=job_file.name, up=up, after=after),
    }


def write_scripts(files: Mapping[Path, str]) -> None:
    """Write files of `chain_files`, in place of older ones."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


def submit_chain(submit: Path, num_jobs: int) -> list[int]:
    """Run a script of `submit_script`; return the jobs' numbers.

    The jobs find the `rlhf` beside this Python. Raises UnavailableError where sbatch refuses one.
    """
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["bash", str(submit)],
        env=os.environ | {"PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    jobs = done.stdout.split()
    if done.returncode:
        rest = f"The jobs before it are in the queue; to take them back: scancel {' '.join(jobs)}"
        raise UnavailableError(
            f"sbatch refused job {len(jobs) + 1} of {num_jobs}: {' '.join(done.stderr.split())[-300:]}",
            where=str(submit),
            fix=rest if jobs else "Change what its message names; nothing was queued.",
        )
    return [int(job) for job in jobs]


def _directive(option: str) -> str:
    """Quote an option for sbatch, which reads its lines much as a shell does."""
    name, equals, value = option.partition("=")
    if not name or name.startswith("-") or not option.isprintable() or any(char.isspace() for char in name):
        raise UsageError(
            f"--sbatch {option!r} is no option of sbatch",
            fix="Write it without dashes, on one line: --sbatch mem=200G, --sbatch exclusive.",
        )
    return f"{name}{equals}{shlex.quote(value) if value else ''}"


def _render(page: str, **facts: object) -> str:
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(loader=FileSystemLoader(_PAGES), trim_blocks=True, keep_trailing_newline=True)
    pages.filters["quote"] = shlex.quote
    return pages.get_template(f"{page}.jinja").render(facts)
