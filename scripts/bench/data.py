"""Time what comes before the first step: reading, tokenising and laying out up to 100,000 pairs. Ours alone.

scripts/bench/run data --rows FILE [--num-pairs N] prints a Markdown table for a quarter, half and all of N.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from scripts.bench.compare import ensure_world, say
from scripts.bench.sides import ROOT, Case, read_jsonl, run_ours
from scripts.bench.table import MEBIBYTE, markdown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run data", description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="HH-RLHF JSON lines: chosen, rejected")
    parser.add_argument("--num-pairs", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    world = ensure_world(work, arguments.rows)
    lines = []
    for num_pairs in (arguments.num_pairs // 4, arguments.num_pairs // 2, arguments.num_pairs):
        pairs = work / f"pairs-{num_pairs}.jsonl"
        with pairs.open("w", encoding="utf-8") as out:
            out.writelines(islice(numbered(arguments.rows), num_pairs))
        lines.append([f"{num_pairs}", f"{pairs.stat().st_size // MEBIBYTE}", *measure(work, world, pairs)])
        say(" ".join(lines[-1]))
    print(markdown(["pairs", "file MiB", "seconds to the first step", "peak MiB"], lines))


def numbered(rows: Path) -> Iterator[str]:
    """Repeat transcripts without end, each time with another number in front, so that no two rows are equal."""
    transcripts = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    for number in count():
        row = transcripts[number % len(transcripts)]
        sides = {side: f"\n\nHuman: ({number}) {row[side].lstrip()}" for side in ("chosen", "rejected")}
        yield json.dumps(sides, ensure_ascii=False) + "\n"


def measure(work: Path, world: Path, pairs: Path) -> tuple[str, str]:
    """Start train-rm on the pairs and let it take one step."""
    settings = {"data.train": [{"path": str(pairs)}], "train.max_steps": 1}
    case = Case("train-rm", "bfloat16", world, work / "data", settings=settings)
    sample = run_ours(case)
    began = {row["kind"]: float(str(row["time"])) for row in read_jsonl(case.out / "run" / "events.jsonl")}
    return f"{began['training'] - began['started']:.1f}", f"{sample.peak_bytes // MEBIBYTE}"


if __name__ == "__main__":
    main()
