"""Run our stages and TRL's on the same model and rows, in turn, and write a table. Started by scripts/bench/run.

This process stays small (no torch): the memory it holds would count towards its children's.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from scripts.bench.flops import Row, Shape, useful_flops
from scripts.bench.process import run_measured
from scripts.bench.sides import PPO_EPOCHS, ROOT, Case, Sample, run_ours, run_theirs
from scripts.bench.table import Comparison, comparison_table

STAGES = ("sft", "train-rm", "dpo", "ppo")
PRECISIONS = ("float32", "bfloat16")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="HH-RLHF JSON lines: chosen, rejected")
    parser.add_argument("--stage", choices=STAGES, action="append", help="repeatable; all without it")
    parser.add_argument(
        "--precision", choices=PRECISIONS, action="append", help="repeatable; both without it"
    )
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs, in turn")
    parser.add_argument("--side", choices=("both", "ours", "theirs"), default="both")
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    parser.add_argument("--envs", type=Path, help="where TRL's environments are or are made; default: --work")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu takes a 0.5B model")
    parser.add_argument("--num-rows", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--no-checkpointing", action="store_true", help="switch off TRL's gradient checkpointing, its default"
    )
    parser.add_argument(
        "--set",
        action="append",
        type=setting,
        default=[],
        metavar="KEY=VALUE",
        help="a leaf of our configuration",
    )
    return parser.parse_args()


def setting(words: str) -> tuple[str, object]:
    """Read `section.key=value`, the value as YAML."""
    key, _, value = words.partition("=")
    return key, yaml.safe_load(value)


def main() -> None:
    """Measure each case, write its rounds as JSON when it is done, and the table of all so far."""
    arguments = parse()
    work: Path = arguments.work.resolve()
    size = "gpu" if arguments.device == "gpu" else "small"
    world = ensure_world(work, arguments.rows, num_rows=arguments.num_rows, size=size)
    precisions = arguments.precision or list(PRECISIONS)
    peaks = measure_peaks(work, arguments.device, precisions)
    for stage in arguments.stage or STAGES:
        for precision in precisions:
            case = Case(
                stage,
                precision,
                world,
                work / f"{stage}-{precision}",
                device=arguments.device,
                batch_size=arguments.batch_size,
                their_checkpointing=not arguments.no_checkpointing,
                settings=dict(arguments.set),
            )
            rounds = measure(case, arguments.rounds, arguments.side, (arguments.envs or work).resolve())
            save(work / "results", compare(case, rounds, peaks[precision]))
            write_table(work, peaks)
    print((work / "results.md").read_text())


def ensure_world(
    work: Path, rows: Path, *, num_rows: int = 48, vocab_size: int | None = None, size: str = "small"
) -> Path:
    """Make the model and the rows for these options once."""
    options = ["--num-rows", str(num_rows), "--size", size]
    options += ["--vocab", str(vocab_size)] if vocab_size else []
    source = hashlib.sha256(rows.read_bytes() + Path(__file__).with_name("world.py").read_bytes()).hexdigest()
    world = work / "-".join(["world", size, str(num_rows), str(vocab_size or "16k"), source[:8]])
    if not (world / "world.json").exists():
        say(f"making {world}")
        command = [sys.executable, "-m", "scripts.bench.world", "--rows", str(rows.resolve())]
        run_measured([*command, "--out", str(world), *options], world.with_suffix(".log"))
    return world


def measure_peaks(work: Path, device: str, precisions: list[str]) -> dict[str, float]:
    """Measure the matrix-multiply peak in each precision, in FLOP/s."""
    log = work / "peak.log"
    run_measured([sys.executable, "-m", "scripts.bench.peak", *precisions, "--device", device], log)
    peaks: dict[str, float] = json.loads(log.read_text().splitlines()[-1])
    say(
        "matrix-multiply peak: "
        + ", ".join(f"{kind} {peak / 1e9:.0f} GFLOP/s" for kind, peak in peaks.items())
    )
    return peaks


def measure(case: Case, rounds: int, side: str, envs: Path) -> tuple[list[Sample], list[Sample]]:
    """Run both sides in turn: ours, theirs, ours, theirs."""
    ours: list[Sample] = []
    theirs: list[Sample] = []
    for number in range(1, rounds + 1):
        if side != "theirs":
            ours.append(run_ours(case))
            say(f"{case.stage} {case.precision} round {number}: ours   {in_words(ours[-1])}")
        if side != "ours":
            theirs.append(run_theirs(case, envs))
            say(f"{case.stage} {case.precision} round {number}: theirs {in_words(theirs[-1])}")
    return ours, theirs


def compare(case: Case, rounds: tuple[list[Sample], list[Sample]], peak_flops: float) -> Comparison:
    """Put the rounds of a case beside the work they did and the models they ended in."""
    shape, rows = read_world(case.world, case.stage)
    epochs = PPO_EPOCHS if case.stage == "ppo" else case.epochs
    ours, theirs = rounds
    return Comparison(
        case.stage,
        case.precision,
        ours,
        theirs,
        num_examples=len(rows) * case.epochs,
        num_tokens=sum(row.num_tokens for row in rows) * case.epochs,
        useful_flops=useful_flops(case.stage, shape, rows, epochs=epochs),
        peak_flops=peak_flops,
        held_out=(
            held_out_loss(case, case.out / "run" / "model") if ours else None,
            held_out_loss(case, case.out / "trl" / "model") if theirs else None,
        ),
    )


def read_world(world: Path, stage: str) -> tuple[Shape, list[Row]]:
    """Read the model's shape and the lengths of the rows a stage trains on."""
    told = json.loads((world / "world.json").read_text())
    return Shape(**told["shape"]), [Row(prompt, tuple(answers)) for prompt, answers in told["rows"][stage]]


def held_out_loss(case: Case, model: Path) -> float | None:
    """Measure a trained model on the held-out rows; PPO has no rows with answers to measure."""
    if case.stage == "ppo":
        return None
    log = case.out / "score.log"
    options = ["--stage", case.stage, "--world", str(case.world), "--model", str(model)]
    run_measured([sys.executable, "-m", "scripts.bench.score", *options], log)
    return float(json.loads(log.read_text().splitlines()[-1])["loss"])


def save(folder: Path, comparison: Comparison) -> None:
    """Write one case as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{comparison.stage}-{comparison.precision}.json"
    path.write_text(json.dumps(asdict(comparison), indent=1) + "\n")


def load(path: Path) -> Comparison:
    """Read one case."""
    told = json.loads(path.read_text())
    for side in ("ours", "theirs"):
        told[side] = [Sample(**{**sample, "losses": tuple(sample["losses"])}) for sample in told[side]]
    return Comparison(**{**told, "held_out": tuple(told["held_out"])})


def write_table(work: Path, peaks: dict[str, float]) -> None:
    """Write results.md: every case measured in this folder that has our side."""
    paths = [work / "results" / f"{stage}-{precision}.json" for stage in STAGES for precision in PRECISIONS]
    cases = [load(path) for path in paths if path.exists()]
    table = comparison_table([case for case in cases if case.ours])
    told = ", ".join(f"{kind} {peak / 1e9:.0f} GFLOP/s" for kind, peak in peaks.items())
    (work / "results.md").write_text(
        f"Matrix-multiply peak: {told}. Ours first, then TRL's.\n\n{table}{steps(cases)}"
    )


def steps(cases: Sequence[Comparison]) -> str:
    """Write the loss of every step of both sides, where both report one per step on the same rows."""
    lines = []
    for case in cases:
        if case.stage != "ppo" and case.ours and case.theirs:
            for name, side in (("ours", case.ours), ("TRL", case.theirs)):
                losses = " ".join(f"{loss:.4f}" for loss in side[-1].losses)
                lines.append(f"    {case.stage} {case.precision} {name}: {losses}")
    return "\nLoss of each step:\n\n" + "\n".join(lines) + "\n" if lines else ""


def in_words(sample: Sample) -> str:
    return (
        f"{sample.seconds:.1f} s training, {sample.wall_seconds:.1f} s in all, "
        f"{sample.peak_bytes / 2**20:.0f} MiB"
    )


def say(text: str) -> None:
    """Tell how far it is, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
