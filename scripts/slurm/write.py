"""Write the job files of this folder, by the code behind `rlhf launch`: python -m scripts.slurm.write [--check]."""

import sys
from pathlib import Path

from rlhf_cli.tools.slurm import Resources, Step, job_script, submit_script, write_scripts

HERE = Path(__file__).parent
CHAIN = [
    Step("sft", "configs/quickstart/base.yaml"),
    Step("sft", "configs/quickstart/sft.yaml"),
    Step("collect", "configs/quickstart/collect.yaml"),
    Step("train-rm", "configs/quickstart/train_rm.yaml"),
    Step("ppo", "configs/quickstart/ppo.yaml"),
    Step("dpo", "configs/quickstart/dpo.yaml"),
]
GPUS = "gpus-per-node=8"


def wanted() -> dict[Path, str]:
    """Give the text that every file should have."""
    resources = {
        "one_process.sbatch": Resources(),
        "one_node.sbatch": Resources(processes_per_node=8, options=(GPUS,)),
        "many_nodes.sbatch": Resources(nodes=4, processes_per_node=8, options=(GPUS, "exclusive")),
    }
    jobs = {HERE / name: job_script(it, name=f"scripts/slurm/{name}") for name, it in resources.items()}
    return jobs | {HERE / "chain.sh": submit_script(CHAIN, job_file="one_process.sbatch", up="../..")}


def main(arguments: list[str]) -> int:
    stale = {path: text for path, text in wanted().items() if not path.exists() or path.read_text() != text}
    if "--check" not in arguments:
        write_scripts(stale)
    for path in stale:
        print(f"{'stale' if '--check' in arguments else 'written'}: {path.name}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
