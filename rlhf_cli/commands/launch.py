"""`rlhf launch`: stages as jobs of a cluster, one after the other."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_cli.commands.options import Json, options_from
from rlhf_cli.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from rlhf_cli.tools.slurm import Resources, Step


@dataclass(frozen=True)
class JobOptions:
    """What may be said about the jobs, each field an option."""

    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="Nodes per job.")] = 1
    gpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="GPUs per node.")] = None
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes per node, if not one per GPU.")
    ] = None
    time: Annotated[str | None, typer.Option(metavar="H:M:S", help="Limit of one attempt.")] = None
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Which nodes.")] = None
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Who pays.")] = None
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="One more, such as mem=64G. Repeatable.")
    ] = None
    max_requeues: Annotated[int, typer.Option(min=0, metavar="N", help="How often a job may resume.")] = 50
    after: Annotated[int | None, typer.Option(min=1, metavar="JOB", help="A job to wait for.")] = None
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the scripts go.")] = Path("slurm")


@options_from(JobOptions)
def launch(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="YAML files of stages, in order.")],
    options: JobOptions,
    slurm: Annotated[bool, typer.Option("--slurm", help="Launch Slurm jobs; nothing else is known.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the scripts; write nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Run stages on a cluster, each when the one before it is completed.

    Checks all files, writes stage.sbatch and submit.sh, hands the jobs in and prints their numbers. A job that is
    preempted or out of time resumes by itself; one that fails cancels those behind it.

    \b
    Example:
      rlhf launch --slurm sft.yaml train_rm.yaml ppo.yaml --gpus 8
    """
    from rlhf_cli.tools import slurm as tool

    if not slurm:
        raise UsageError("nothing says where the stages are to run", fix="Add --slurm.")
    steps = _checked_steps(files)
    scripts = tool.chain_files(options.out, steps, _resources(options), root=Path.cwd(), after=options.after)
    if dry_run:
        shown = {str(path): text for path, text in scripts.items()}
        text = "".join(f"### {path}\n{script}\n" for path, script in shown.items())
        ctx.obj.show("launch", {"jobs": [], "scripts": shown}, text)
        return
    if not shutil.which("sbatch"):
        raise UnavailableError(
            "there is no sbatch on this machine",
            where="PATH",
            fix="Run this where Slurm jobs are submitted, or add --dry-run to see what would be.",
        )
    tool.write_scripts(scripts)
    submit = options.out / "submit.sh"
    jobs = tool.submit_chain(submit, len(steps))
    told = [
        {"job": job, "stage": step.stage, "config": step.file} for job, step in zip(jobs, steps, strict=True)
    ]
    ctx.obj.show("launch", {"jobs": told}, "".join(f"{job}\n" for job in jobs))


def _checked_steps(files: Sequence[Path]) -> "list[Step]":
    """Load every file as its stage will; refuse what no job could do."""
    from rlhf_cli.config.guess import guess_stage
    from rlhf_cli.config.load import load_config
    from rlhf_cli.tools.slurm import Step

    steps: dict[Path, Step] = {}
    for path in files:
        stage = guess_stage(path)
        config = load_config(stage, path).config
        if stage == "collect" and config.kind != "constitution" and config.labeler.kind == "terminal":
            fix = "Run it by hand and launch the stages behind it, or choose another labeler."
            raise UsageError("this asks a person at a terminal, and a job has none", where=str(path), fix=fix)
        run_dir = Path(config.run_dir).resolve()
        if run_dir in steps:
            message = f"{steps[run_dir].file} and {path} have the same run_dir"
            raise UsageError(message, where=config.run_dir, fix="Give each stage a run_dir of its own.")
        steps[run_dir] = Step(stage, str(path))
    return list(steps.values())


def _resources(options: JobOptions) -> "Resources":
    from rlhf_cli.tools.slurm import Resources

    named = {
        "gpus-per-node": options.gpus,
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
    }
    return Resources(
        nodes=options.nodes,
        processes_per_node=options.processes or options.gpus or 1,
        max_requeues=options.max_requeues,
        options=(*(f"{name}={it}" for name, it in named.items() if it), *(options.sbatch or ())),
    )
