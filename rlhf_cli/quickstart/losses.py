"""One table of several seeds: `python -m rlhf_cli.quickstart.losses FILE...`, files that `rounds --json` wrote."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter, ValidationError

from rlhf_cli.errors import DataError, MissingInputError, RlhfError
from rlhf_cli.quickstart.figures import Figures

Rows = dict[str, dict[str, Figures]]
_ROWS = TypeAdapter(Rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table to stdout and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.losses", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="one of each seed")
    try:
        seeds = [read_rows(path) for path in parser.parse_args(arguments).files]
        table = "\n".join(lines(seeds)) + "\n"
    except RlhfError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(table)
    return 0


def read_rows(path: Path) -> Rows:
    """Read the figures of one seed, by the last part of each policy's path. Raises MissingInputError, DataError."""
    fix = "Write it with: python -m rlhf_cli.quickstart.rounds --root DIR --json FILE POLICY..."
    try:
        rows = _ROWS.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingInputError(f"no figures in {path}", fix=fix) from error
    except ValidationError as error:
        raise DataError(
            f"not figures of policies: {error.errors()[0]['msg']}", where=str(path), fix=fix
        ) from error
    return {Path(name).name: both for name, both in rows.items()}


def lines(seeds: Sequence[Rows]) -> Iterator[str]:
    """Yield one row for each policy: gold of each seed at temperature 1 and greedy, then means over the seeds.

    Raises DataError where a seed lacks a policy that the first one has.
    """
    yield "| policy | gold of each seed | gold | greedy of each seed | greedy | KL | words |"
    yield "|---|---|---:|---|---:|---:|---:|"
    for name in seeds[0]:
        if not all(name in rows for rows in seeds):
            raise DataError(
                f"a seed has no figures of {name}, the first one has", fix="Measure it there too."
            )
        sampled = [rows[name]["sampled"] for rows in seeds]
        greedy = [rows[name]["greedy"] for rows in seeds]
        kl, words = _mean(sampled, lambda it: it.kl or 0.0), _mean(sampled, lambda it: it.words)
        yield f"| `{name}` | {_golds(sampled)} | {_golds(greedy)} | {kl:.2f} | {words:.1f} |"


def _golds(figures: Sequence[Figures]) -> str:
    each = " / ".join(f"{row.gold:.3f}" for row in figures)
    return f"{each} | {_mean(figures, lambda row: row.gold):.3f}"


def _mean(figures: Sequence[Figures], value_of: Callable[[Figures], float]) -> float:
    return fmean(value_of(row) for row in figures)


if __name__ == "__main__":
    sys.exit(main())
