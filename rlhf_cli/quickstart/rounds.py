"""Gold scores of any policies of the example: `python -m rlhf_cli.quickstart.rounds --root DIR POLICY...`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_cli.errors import RlhfError
from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.quickstart.figures import Figures, summarise
from rlhf_cli.quickstart.measure import Grader, answer_requests, read_requests
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.run.directory import write_atomic

_MAX_NEW_TOKENS = 48
_COLUMNS = ("gold", "greedy gold", "RM", "KL", "words", "EOS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a Markdown table to stdout and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.rounds", description=__doc__)
    parser.add_argument("policies", nargs="+", metavar="POLICY", help="runs or model directories, in order")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the example's runs: sft, rm, data"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampled answers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE too")
    options = parser.parse_args(arguments)
    try:
        figures = measure(options.root, options.policies, options.seed)
    except RlhfError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if options.json:
        tree = {
            name: {key: dataclasses.asdict(it) for key, it in both.items()} for name, both in figures.items()
        }
        write_atomic(options.json, json.dumps(tree, indent=2, allow_nan=False) + "\n")
    sys.stdout.write(render(figures))
    return 0


def measure(root: Path, policies: Sequence[str], seed: int) -> dict[str, dict[str, Figures]]:
    """Have SFT and each policy answer the held-out requests, sampled at temperature 1 and greedy.

    The k-th request has the same random numbers for every policy. KL and reward are those of `root`/sft and /rm.
    """
    sft = load_policy_for_sampling(str(root / "sft"))
    requests = read_requests(root / "data" / "eval_prompts.jsonl", sft.vocabulary, _MAX_NEW_TOKENS)
    grader = Grader.open(root / "rm", sft)
    figures: dict[str, dict[str, Figures]] = {}
    for name in ("sft", *policies):
        policy = sft if name == "sft" else load_policy_for_sampling(name)
        figures[name] = {}
        for kind, temperature in (("sampled", 1.0), ("greedy", 0.0)):
            sampling = Sampling(temperature, 1.0, _MAX_NEW_TOKENS, policy.vocabulary.stop_ids)
            episodes = answer_requests(policy, requests, sampling, seed)
            ratios = grader.log_ratios(policy, episodes) if temperature else [None] * len(episodes)
            figures[name][kind] = summarise(grader.grade(episodes, ratios), None)
    return figures


def render(figures: Mapping[str, Mapping[str, Figures]]) -> str:
    """Render one row for each policy."""
    lines = [f"| policy | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    for name, both in figures.items():
        sampled, greedy = both["sampled"], both["greedy"]
        kl = 0.0 if sampled.kl is None else sampled.kl
        cells = [f"{sampled.gold:.3f}", f"{greedy.gold:.3f}", f"{sampled.reward:+.2f}", f"{kl:.2f}"]
        cells += [f"{sampled.words:.1f}", f"{sampled.eos_rate:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
