"""Time reading, tokenising and batching many preference rows, first without anything kept, then once more.

scripts/bench/run data --rows FILE [--num-rows N] prints a Markdown table. The rows are those of FILE over and over,
each with a number of its own in its first turn, so that no two are the same text.
"""

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

from scripts.bench.compare import ensure_world, say
from scripts.bench.process import run_measured
from scripts.bench.sides import MAX_LENGTH, ROOT
from scripts.bench.table import MEBIBYTE, markdown

FIRST_TURN = "\n\nHuman: "
PARTS = ("reading", "tokenising", "first batch")


def main() -> None:
    """Run both starts, each in a process of its own, and print the table; or be one of them."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run data", description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="HH-RLHF JSON lines: chosen, rejected")
    parser.add_argument("--num-rows", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    parser.add_argument("--model", type=Path, help="used inside: be one start, with this model's tokenizer")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    if arguments.model:
        print(json.dumps(start(arguments.rows, arguments.model, work)))
        return
    world = ensure_world(work, arguments.rows)
    rows = work / f"rows-{arguments.num_rows}.jsonl"
    write_rows(rows, arguments.rows.read_text(encoding="utf-8").splitlines(), arguments.num_rows)
    folder = work / f"data-{time.time_ns()}"
    lines = []
    for name in ("first start", "once more"):
        log = folder / "start.log"
        options = ["--rows", str(rows), "--model", str(world / "model"), "--work", str(folder)]
        command = [sys.executable, "-m", "scripts.bench.data", *options]
        usage = run_measured(command, log, env={"TOKENIZERS_PARALLELISM": "true"})
        seconds = json.loads(log.read_text().splitlines()[-1])
        mebibytes = f"{usage.peak_bytes // MEBIBYTE}"
        lines.append([name, *(f"{seconds[p]:.1f}" for p in PARTS), f"{usage.wall_seconds:.1f}", mebibytes])
        say(f"{name}: {usage.wall_seconds:.1f} s")
    print(markdown([f"{arguments.num_rows} pairs, seconds", *PARTS, "whole process", "peak MiB"], lines))


def write_rows(path: Path, lines: list[str], num_rows: int) -> None:
    """Write as many rows as asked for, each with a number of its own."""
    with path.open("w", encoding="utf-8") as file:
        for k in range(num_rows):
            row = json.loads(lines[k % len(lines)])
            numbered = {side: row[side].replace(FIRST_TURN, f"{FIRST_TURN}({k}) ", 1) for side in row}
            file.write(json.dumps(numbered, ensure_ascii=False) + "\n")


def start(rows: Path, model: Path, work: Path) -> dict[str, float]:
    """Do what train-rm and dpo do up to their first step; give the seconds of each part."""
    from rlhf_cli.config.sections import Data, Model, Source, Train
    from rlhf_cli.data.batches import Layout
    from rlhf_cli.data.loader import walk_pairs
    from rlhf_cli.data.prepare import comparisons_of, encode_comparisons, make_encoder_of, without_ties
    from rlhf_cli.models.load import load_vocabulary

    times = [time.perf_counter()]
    section = Data(train=[Source(path=str(rows))], max_length=MAX_LENGTH)
    records = without_ties(comparisons_of(section, 0))
    times.append(time.perf_counter())
    vocabulary = load_vocabulary(Model(path=str(model)))
    make = make_encoder_of(
        section, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions, cache=work / "cache"
    )
    data = encode_comparisons(records, make)
    times.append(time.perf_counter())
    layout = Layout(vocabulary.pad_id, packed=True)
    next(iter(walk_pairs(data.train, layout, Train(batch_size=64), micro_tokens=4096, seed=0)))
    times.append(time.perf_counter())
    return {part: after - before for part, (before, after) in zip(PARTS, pairwise(times), strict=True)}


if __name__ == "__main__":
    main()
