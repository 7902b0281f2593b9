"""Markdown of several seeds: `python -m rlhf_cli.quickstart.seeds FILE...`, each FILE from `table --json`."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter, ValidationError

from rlhf_cli.errors import DataError, MissingInputError, RlhfError
from rlhf_cli.quickstart.figures import MODELS, Figures, Results
from rlhf_cli.quickstart.gates import check_gates

Row = list[str]
_RESULTS = TypeAdapter(Results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables to stdout and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.seeds", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    try:
        results = [read_results(path) for path in parser.parse_args(arguments).files]
    except RlhfError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(render(results))
    return 0


def read_results(path: Path) -> Results:
    """Read the figures of one seed. Raises MissingInputError, DataError."""
    fix = "Write it with: python -m rlhf_cli.quickstart.table --root DIR --json FILE"
    try:
        return _RESULTS.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingInputError(f"no figures in {path}", fix=fix) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise DataError(
            f"not the figures of a seed: {problem['msg']}", where=f"{path}: {place}", fix=fix
        ) from error


def render(results: Sequence[Results]) -> str:
    """Render one table per temperature, means over the seeds beside the gold score of each, and one of promises."""
    seeds = " / ".join(str(result.seed) for result in results)
    requests = " / ".join(dict.fromkeys(str(result.num_requests) for result in results))
    return "\n".join(
        [
            f"Seeds {seeds}, {requests} held-out requests each. After the gold scores of the seeds come means.\n",
            *_table(_figure_rows("T=1", [result.sampled for result in results])),
            "",
            *_table(_figure_rows("greedy", [result.greedy for result in results])),
            "",
            *_table(_gate_rows(results)),
            "",
        ]
    )


def _figure_rows(heading: str, seeds: Sequence[dict[str, Figures]]) -> Iterator[Row]:
    parts = list(seeds[0]["sft"].parts)
    yield [heading, "gold of each seed", "gold", *parts, "RM", "KL", "words", "EOS", "wins"]
    for name in MODELS:
        rows = [figures[name] for figures in seeds]
        yield [
            name.upper(),
            " / ".join(f"{row.gold:.3f}" for row in rows),
            _mean((row.gold for row in rows), ".3f"),
            *(_mean([row.parts[part] for row in rows], ".3f") for part in parts),
            _mean((row.reward for row in rows), "+.2f"),
            _mean((row.kl for row in rows), ".2f"),
            _mean((row.words for row in rows), ".1f"),
            _mean((row.eos_rate for row in rows), ".3f"),
            _mean((row.win_rate for row in rows), ".3f"),
        ]


def _mean(values: Iterable[float | None], form: str) -> str:
    """Format the mean of the values, "-" where there are none."""
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known else "-"


def _gate_rows(results: Sequence[Results]) -> Iterator[Row]:
    yield ["promise", *(f"seed {result.seed}" for result in results)]
    for gates in zip(*map(check_gates, results), strict=True):
        yield [gates[0].promise, *(f"{'ok' if gate.ok else 'MISSED'}: {gate.figures}" for gate in gates)]


def _table(rows: Iterator[Row]) -> Iterator[str]:
    """Write rows as Markdown; the first is the heading."""
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield "|" + "---|" * len(row)


if __name__ == "__main__":
    sys.exit(main())
