"""The report at the end of the example: `python -m rlhf_cli.quickstart.table --root runs/quickstart`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rlhf_cli.errors import RlhfError
from rlhf_cli.quickstart import gold
from rlhf_cli.quickstart.figures import MODELS, Answer, Figures, Sample, choose_samples
from rlhf_cli.quickstart.gates import Gate, check_gates
from rlhf_cli.quickstart.measure import Comparison, compare
from rlhf_cli.run.directory import RunDir, write_atomic

WIDTH = 100
RUNS = ("base", "sft", "collect", "rm", "ppo", "dpo")

_NARROW, _WIDE = 1, 2  # blanks between columns
_EXPLAINED = (
    "gold: the known quality of an answer, 0 to 1, = {weights}. RM: reward model score, in standard deviations. "
    "KL: distance from SFT, nats per answer. EOS: share of answers that end by themselves. wins: share of requests "
    "with a better gold score than SFT, a tie (less than {tie:g} apart) counting half, with its 95 % interval."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the report to stdout and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.table", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the example's runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a promise is not kept")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(options.root)
    except RlhfError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    gates = check_gates(comparison.results)
    if options.json:
        write_atomic(options.json, as_json(comparison, gates))
    sys.stdout.write(report(open_console(), options.root, comparison, gates))
    return int(options.strict and not all(gate.ok for gate in gates))


def as_json(comparison: Comparison, gates: Sequence[Gate]) -> str:
    """Render the figures and gates as one JSON object."""
    tree = dataclasses.asdict(comparison.results) | {"gates": [dataclasses.asdict(gate) for gate in gates]}
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def open_console() -> Console:
    """Write to stdout, 100 columns wide; narrower where the terminal is."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    return console


def report(console: Console, root: Path, comparison: Comparison, gates: Sequence[Gate]) -> str:
    """Render everything for the console, without the blanks that rich fills lines with."""
    with console.capture() as captured:
        _print_report(console, root, comparison, gates)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _print_report(console: Console, root: Path, comparison: Comparison, gates: Sequence[Gate]) -> None:
    results = comparison.results
    asked = f"{results.num_requests} held-out requests"
    for title, figures in (
        (f"Temperature 1: one sampled answer to each of {asked}", results.sampled),
        (f"Greedy: the likeliest answer to each of the same {asked}", results.greedy),
    ):
        _print_title(console, title)
        _print_whole(console, partial(figures_table, figures))
    weights = " + ".join(f"{weight:g} {part}" for part, weight in gold.WEIGHTS.items())
    console.print(Text("\n" + _EXPLAINED.format(weights=weights, tie=gold.TIE), style="dim"))
    accuracy = "not measured" if results.rm_accuracy is None else f"{results.rm_accuracy:.3f}"
    console.print(f"\nReward model: {accuracy} of held-out comparisons ranked as the judge did.")
    _print_samples(console, comparison)
    _print_places(console, root)
    _print_title(console, "Promises")
    _print_whole(console, partial(gates_table, gates))


def _print_title(console: Console, title: str) -> None:
    console.print()
    console.print(title, style="bold")
    console.print()


def figures_table(figures: Mapping[str, Figures], gap: int) -> Table:
    """Lay out one row per model, with `gap` blanks between columns."""
    columns = {name: dict(_cells(row)) for name, row in figures.items()}
    table = _grid(gap)
    for heading in ("", *columns["sft"]):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name in MODELS:
        table.add_row(name.upper(), *columns[name].values())
    return table


def _cells(row: Figures) -> Iterator[tuple[str, str]]:
    yield "gold", f"{row.gold:.3f}"
    yield from ((part, f"{value:.3f}") for part, value in row.parts.items())
    yield "RM", f"{row.reward:+.2f}"
    if row.kl is not None:
        yield "KL", f"{row.kl:.2f}"
    yield "words", f"{row.words:.1f}"
    yield "EOS", f"{row.eos_rate:.3f}"
    yield "wins", "-" if row.win_rate is None else f"{row.win_rate:.3f}"
    yield "95 %", "-" if row.win_interval is None else "{:.2f}-{:.2f}".format(*row.win_interval)


def gates_table(gates: Sequence[Gate], gap: int) -> Table:
    """Lay out one line per promise."""
    table = _grid(gap)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.show_header = False
    for gate in gates:
        table.add_row(
            Text("ok", style="green") if gate.ok else Text("MISSED", style="bold red"),
            gate.promise,
            gate.figures,
        )
    return table


def _grid(gap: int) -> Table:
    return Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")


def _print_whole(console: Console, table_of: Callable[[int], Table]) -> None:
    """Print a table uncut: its columns closer together where they do not fit, beyond the edge if that is too little."""
    unlimited = console.options.update(width=10 * WIDTH)
    for gap in (_WIDE, _NARROW):
        table = table_of(gap)
        width = console.measure(table, options=unlimited).maximum
        if width <= console.width:
            break
    limit = console.width
    console.width = max(width, limit)
    console.print(table)
    console.width = limit


def _print_samples(console: Console, comparison: Comparison) -> None:
    samples = choose_samples(comparison.sampled)
    _print_title(console, f"{len(samples)} of the requests, their answers at temperature 1 and gold scores")
    if not any(sample.failed for sample in samples):
        console.print("No failure to show: no aligned answer has less gold than SFT's.\n")
    for number, sample in enumerate(samples):
        if number:
            console.print()
        answers = {name: comparison.sampled[name][sample.index] for name in MODELS}
        console.print(_heading(sample, answers))
        console.print(Padding(comparison.requests[sample.index].strip(), (0, 0, 0, 2)))
        console.print(Padding(answers_table(answers, sample.failed), (0, 0, 0, 2)))


def _heading(sample: Sample, answers: Mapping[str, Answer]) -> Text:
    """Say why a request is shown, and mark it as a failure where an aligned answer is worse than SFT's."""
    if not sample.failed:
        return Text(f"{sample.reason}:", style="bold")
    losses = [f"{name.upper()} {answers[name].gold - answers['sft'].gold:+.2f}" for name in sample.failed]
    return Text(f"FAILURE ({sample.reason}): below SFT: {', '.join(losses)}", style="bold red")


def answers_table(answers: Mapping[str, Answer], failed: Sequence[str]) -> Table:
    """Lay the answers of all models out side by side, each under its gold score."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim", expand=True)
    for name in MODELS:
        mark = ", FAILURE" if name in failed else ""
        table.add_column(f"{name.upper()} {answers[name].gold:.2f}{mark}", ratio=1)
    table.add_row(
        *(answer.text + ("" if answer.finished else " [never ended]") for answer in answers.values())
    )
    return table


def _print_places(console: Console, root: Path) -> None:
    _print_title(console, "Where everything is")
    console.print("Each folder is a run; model/ in it is what it made (collect: preferences.jsonl).")
    for name in RUNS:
        report = RunDir(root / name).report
        if report.exists():
            console.print(f"  {name:<9}{report}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
