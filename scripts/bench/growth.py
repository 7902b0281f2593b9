"""Show how our time and memory grow: with rows, passes, vocabulary, and roles on one base. Ours alone.

scripts/bench/run growth --rows FILE [--part rows|epochs|vocabulary|roles] prints a Markdown table for each part.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.bench.compare import STAGES, ensure_world, read_world, say
from scripts.bench.process import run_measured
from scripts.bench.sides import ROOT, Case, Sample, run_ours
from scripts.bench.table import MEBIBYTE, markdown

BYTES_PER_PARAMETER = 16  # fp32 weight, gradient, and the two means of AdamW
LORA = {"model.lora": {"rank": 16, "alpha": 32}}


def main() -> None:
    """Run the parts asked for and print their tables."""
    parts: dict[str, Callable[[Bench], str]] = {
        "rows": rows_table,
        "epochs": epochs_table,
        "vocabulary": vocabulary_table,
        "roles": roles_table,
    }
    parser = argparse.ArgumentParser(prog="scripts/bench/run growth", description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="HH-RLHF JSON lines: chosen, rejected")
    parser.add_argument("--part", choices=parts, action="append", help="repeatable; all without it")
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    bench = Bench(arguments.work.resolve(), arguments.rows, arguments.precision)
    for part in arguments.part or parts:
        print(f"{part}\n\n{parts[part](bench)}", flush=True)


class Bench:
    """Where runs are written, what rows they read, and the precision of all."""

    def __init__(self, work: Path, rows: Path, precision: str) -> None:
        self.work, self.rows, self.precision = work, rows, precision

    def world(self, *, num_rows: int = 48, vocab_size: int | None = None, size: str = "small") -> Path:
        """Make, or find, a model and rows."""
        return ensure_world(self.work, self.rows, num_rows=num_rows, vocab_size=vocab_size, size=size)

    def run(
        self,
        stage: str,
        world: Path,
        name: str,
        *,
        epochs: int = 1,
        settings: Mapping[str, object] | None = None,
        reward: Path | None = None,
    ) -> Sample:
        """Run one of our stages once."""
        case = Case(
            stage,
            self.precision,
            world,
            self.work / f"growth-{name}",
            epochs=epochs,
            reward=reward,
            settings=settings or {},
        )
        sample = run_ours(case)
        say(f"{name}: {sample.seconds:.1f} s, {sample.peak_bytes / MEBIBYTE:.0f} MiB")
        return sample


def rows_table(bench: Bench) -> str:
    """Train each stage on 48 rows (PPO: 32 prompts) and on twice and four times as many."""
    lines = []
    for stage in STAGES:
        seconds: list[float] = []
        tokens: list[int] = []
        for num_rows in (48, 96, 192):
            world = bench.world(num_rows=num_rows)
            rows = read_world(world, stage)[1]
            sample = bench.run(stage, world, f"{stage}-{num_rows}")
            seconds.append(sample.seconds)
            tokens.append(sum(row.num_tokens for row in rows))
            more = f"{seconds[-1] / seconds[-2]:.2f}" if len(seconds) > 1 else ""
            more_tokens = f"{tokens[-1] / tokens[-2]:.2f}" if len(tokens) > 1 else ""
            mebibytes = f"{sample.peak_bytes // MEBIBYTE}"
            lines.append([stage, f"{len(rows)}", f"{seconds[-1]:.2f}", more, more_tokens, mebibytes])
    return markdown(["stage", "rows", "seconds", "times as long", "times the tokens", "peak MiB"], lines)


def epochs_table(bench: Bench) -> str:
    """Train DPO for one pass and for three: the reference scores the pairs once."""
    world = bench.world()
    once, thrice = (bench.run("dpo", world, f"dpo-epochs-{n}", epochs=n).seconds for n in (1, 3))
    lines = [["1", f"{once:.2f}", ""], ["3", f"{thrice:.2f}", f"{thrice / once:.2f}"]]
    return markdown(["epochs of dpo", "seconds", "times as long"], lines)


def vocabulary_table(bench: Bench) -> str:
    """Train on every token with a vocabulary of 16k and of 128k: only the embedding may grow."""
    lines = []
    for vocab_size in (16 * 1024, 128 * 1024):
        world = bench.world(vocab_size=vocab_size)
        shape, rows = read_world(world, "sft")
        longest = sorted((row.num_tokens for row in rows), reverse=True)[:8]
        logits = sum(longest) * vocab_size * 4
        state = BYTES_PER_PARAMETER * (shape.block_weights + vocab_size * shape.hidden_size)
        sample = bench.run("sft", world, f"sft-vocabulary-{vocab_size}", settings={"loss.on": "all"})
        figures = (sample.peak_bytes, state, sample.peak_bytes - state, logits)
        lines.append([f"{vocab_size}", *(f"{figure // MEBIBYTE}" for figure in figures)])
    header = [
        "vocabulary",
        "peak MiB",
        "weights, gradient, AdamW",
        "the rest",
        "logits of one batch would be",
    ]
    return markdown(header, lines)


def roles_table(bench: Bench) -> str:
    """Open policy, reference, reward model and critic of ppo on one base, one after the other."""
    world = bench.world(num_rows=48, size="medium")
    shape = read_world(world, "ppo")[0]
    base = 4 * (shape.block_weights + shape.vocab_size * shape.hidden_size)
    few = [{"path": str(world / "pairs.jsonl"), "limit": 4}]
    short = {**LORA, "data.train": few, "train.batch_size": 1, "train.max_steps": 1}
    bench.run("train-rm", world, "roles-rm", settings=short)
    log = bench.work / "roles.log"
    command = [sys.executable, "-m", "scripts.bench.roles", "--model", str(world / "model")]
    run_measured([*command, "--reward", str(bench.work / "growth-roles-rm" / "run")], log)
    told: dict[str, int] = json.loads(log.read_text().splitlines()[-1])
    lines = [["one copy of the weights", f"{base // MEBIBYTE}", ""]]
    lines += [[f"+ {role}", f"{held}", f"{held * MEBIBYTE / base:.2f}"] for role, held in told.items()]
    return markdown(["with LoRA", "resident MiB", "copies"], lines)


if __name__ == "__main__":
    main()
