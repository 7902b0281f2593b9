"""PPO with answers sampled in this process and on a vLLM server, side by side, and the speed of sampling alone.

scripts/bench/run vllm RUN ... [--env .vllm] prints Markdown tables. Each RUN is the folder of a finished
scripts/quickstart: its SFT model (embeddings untied, since vLLM on a CPU reloads tied ones wrongly), its reward model
and its prompts are used, with configs/quickstart/ppo.yaml. Finished runs are kept and not made again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.quickstart.figures import summarise
from rlhf_cli.quickstart.measure import Grader, answer_requests, read_requests
from rlhf_cli.rollout.engine import Engine, Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.rollout.vllm_engine import VllmEngine
from rlhf_cli.rollout.vllm_server import VllmServer
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.metrics import MetricsLog
from scripts.bench.sides import ROOT
from scripts.bench.table import markdown
from scripts.bench.vllm_process import vllm_serving

ENGINES = ("transformers", "vllm")
TOLERANCE = 1e-4
MAX_NEW_TOKENS = 48
NUM_TIMED = 128
NUM_ROUNDS = 5


def main() -> None:
    """Run PPO on every seed with both engines, then print what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run vllm", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folders of finished quickstarts, one for each seed"
    )
    parser.add_argument(
        "--env", type=Path, default=ROOT / ".vllm", help="environment of vLLM, made if missing"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    arguments = parser.parse_args()
    work = arguments.work.resolve() / "vllm"
    roots = {run.resolve(): work / run.resolve().name for run in arguments.runs}
    timed: list[list[str]] = []
    for run, own in roots.items():
        untie(run / "sft" / "model", own / "sft")
        # Each seed has a vocabulary of its own, so no server serves two of them.
        with vllm_serving(own / "sft", arguments.env.resolve(), own / "server.log") as server:
            for engine in ENGINES:
                train(run, own, engine, server.url)
            timed += speeds(run, own, server.url)
    print(markdown(HEADER, [row for run, own in roots.items() for row in rows_of(run, own)]))
    print(markdown(("run", "engine", "reward of each iteration"), list(curves(roots))))
    print(markdown(("run", "engine", "sampled tokens/s", "lowest to highest"), timed))


def train(run: Path, own: Path, engine: str, url: str) -> None:
    """Run PPO from the untied SFT model of a seed, as the quickstart does but for the engine."""
    changes = {
        "run_dir": own / engine,
        "seed": seed_of(run),
        "model.path": own / "sft",
        "reward": f"[{{kind: model, path: '{run / 'rm'}'}}]",
        "data.train": f"[{{path: '{run / 'data' / 'ppo_prompts.jsonl'}'}}]",
        "rollout.tolerance": TOLERANCE,
        "rollout.engine": engine,
    }
    if engine == "vllm":
        changes["rollout.url"] = url
    command = [sys.executable, "-m", "rlhf_cli", "ppo", "--config", str(ROOT / "configs/quickstart/ppo.yaml")]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, cwd=own, env=os.environ | {"PYTHONPATH": str(ROOT)})


HEADER = (
    "seed",
    "engine",
    "reward, first to last iteration",
    "held-out reward",
    "gold, SFT to PPO",
    "KL per answer",
    "answers that end",
    "mean mismatch",
    "largest mismatch",
)


def rows_of(run: Path, own: Path) -> Iterable[list[str]]:
    """Measure the models of one seed as the quickstart does, answers sampled at temperature 1."""
    seed = seed_of(run)
    sft = load_policy_for_sampling(str(own / "sft"))
    grader = Grader.open(run / "rm", sft)
    requests = read_requests(run / "data" / "eval_prompts.jsonl", sft.vocabulary, MAX_NEW_TOKENS)
    sampling = Sampling(1.0, 1.0, MAX_NEW_TOKENS, sft.vocabulary.stop_ids)
    before = grader.grade(answer_requests(sft, requests, sampling, seed), [None] * len(requests))
    for engine in ENGINES:
        policy = load_policy_for_sampling(str(own / engine / "model"))
        episodes = answer_requests(policy, requests, sampling, seed)
        figures = summarise(grader.grade(episodes, grader.log_ratios(policy, episodes)), None)
        reward, held_out = column(own / engine, "reward"), column(own / engine, "eval/reward")
        mismatch = column(own / engine, "rollout_mismatch")
        largest = max(column(own / engine, "rollout_mismatch_max"))
        assert engine == "transformers" or largest <= TOLERANCE, f"{own / engine}: {largest} nats"
        yield [
            str(seed),
            engine,
            f"{reward[0]:+.3f} to {reward[-1]:+.3f}",
            f"{held_out[0]:+.3f} to {held_out[-1]:+.3f}",
            f"{summarise(before, None).gold:.3f} to {figures.gold:.3f}",
            f"{figures.kl:.2f}",
            f"{figures.eos_rate:.3f}",
            f"{sum(mismatch) / len(mismatch):.1e}",
            f"{largest:.1e}",
        ]


def curves(roots: Mapping[Path, Path]) -> Iterable[list[str]]:
    """Write the mean reward of the answers of every iteration."""
    for own in roots.values():
        for engine in ENGINES:
            rewards = column(own / engine, "reward")
            yield [own.name, engine, " ".join(f"{reward:+.2f}" for reward in rewards)]


def speeds(run: Path, own: Path, url: str) -> Iterable[list[str]]:
    """Time both engines in turn on one iteration's answers of the SFT model; the first round does not count."""
    policy = load_policy_for_sampling(str(own / "sft"))
    requests = read_requests(run / "data" / "eval_prompts.jsonl", policy.vocabulary, MAX_NEW_TOKENS)
    prompts = [request.input_ids for request in requests[:NUM_TIMED]]
    sampling = Sampling(1.0, 1.0, MAX_NEW_TOKENS, policy.vocabulary.stop_ids)
    there = VllmEngine(
        VllmServer(url, timeout_seconds=600),
        policy,
        folder=own / "handover",
        proof_prompts=prompts[:4],
        tolerance=TOLERANCE,
        autocast=nullcontext,
    )
    there.refresh(0)
    here = TransformersEngine(
        policy.model,
        policy.vocabulary.pad_id,
        chunk_size=NUM_TIMED,
        autocast=nullcontext,
        max_positions=policy.vocabulary.max_positions,
    )
    engines: dict[str, Engine] = {"transformers": here, "vllm": there}
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(1 + NUM_ROUNDS):
        for name, engine in engines.items():
            began = time.perf_counter()
            answers = engine.generate(prompts, sampling, range(len(prompts)))
            rates[name].append(sum(len(a.token_ids) for a in answers) / (time.perf_counter() - began))
            if number == 0:
                rates[name].clear()
    for name, seen in rates.items():
        yield [own.name, name, f"{median(seen):.0f}", f"{min(seen):.0f} to {max(seen):.0f}"]


def seed_of(run: Path) -> int:
    """Read the seed a quickstart was made with."""
    return int(json.loads((run / "sft" / "manifest.json").read_text(encoding="utf-8"))["seed"])


def column(run: Path, name: str) -> list[float]:
    """Read one metric of a run in the order of steps."""
    return [row[name] for row in MetricsLog(RunDir(run).metrics).read() if name in row]


def untie(source: Path, target: Path) -> None:
    """Copy a model with an output layer of its own that equals its embeddings; what it computes stays the same."""
    if (target / "config.json").exists():
        return
    model = AutoModelForCausalLM.from_pretrained(source)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    main()
