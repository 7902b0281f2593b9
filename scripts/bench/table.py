"""Turn measurements into a Markdown table: medians, ratios of paired rounds, and their spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scripts.bench.sides import Sample

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of one case. Round k of both sides ran next to each other; `theirs` is empty when only ours ran.

    num_examples, num_tokens   examples trained on, and their tokens without padding, each prompt once
    useful_flops               see `flops.useful_flops`
    held_out                   loss per held-out example after training, ours and theirs; None where not measured
    """

    stage: str
    precision: str
    ours: Sequence[Sample]
    theirs: Sequence[Sample]
    num_examples: int
    num_tokens: int
    useful_flops: int
    peak_flops: float
    held_out: tuple[float | None, float | None] = (None, None)

    @property
    def speedups(self) -> list[float]:
        """Divide their seconds by ours, round by round."""
        return [theirs.seconds / ours.seconds for ours, theirs in zip(self.ours, self.theirs, strict=False)]

    @property
    def fraction_of_peak(self) -> float:
        """Divide the useful operations by what the machine's fastest matrix multiplication could do meanwhile."""
        return self.useful_flops / (seconds_of(self.ours) * self.peak_flops)


def seconds_of(samples: Sequence[Sample]) -> float:
    """Give the median training time."""
    return median(sample.seconds for sample in samples)


def peak_of(samples: Sequence[Sample]) -> int:
    """Give the largest memory of any round, in bytes."""
    return max(sample.peak_bytes for sample in samples)


def spread(values: Sequence[float]) -> str:
    """Write the median and, where there are several values, the lowest and highest: `6.1 (5.9-6.4)`."""
    middle = f"{median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}-{max(values):.3g})"


def both(ours: str, theirs: str) -> str:
    """Write ours / theirs, or ours alone."""
    return f"{ours} / {theirs}" if theirs else ours


HEADER = (
    "stage",
    "precision",
    "seconds",
    "speed-up",
    "examples/s",
    "tokens/s",
    "of peak",
    "peak MiB",
    "memory",
    "process seconds",
    "held-out loss",
)


def cells_of(case: Comparison) -> list[str]:
    """Write one row of the table; ours comes first wherever there are two numbers."""
    ours, theirs = case.ours, case.theirs

    def rates(count: int, digits: int) -> str:
        return both(
            f"{count / seconds_of(ours):.{digits}f}",
            f"{count / seconds_of(theirs):.{digits}f}" if theirs else "",
        )

    mebibytes = [f"{peak_of(side) // MEBIBYTE}" if side else "" for side in (ours, theirs)]
    walls = [f"{median(s.wall_seconds for s in side):.3g}" if side else "" for side in (ours, theirs)]
    losses = [f"{loss:.4f}" if loss is not None else "" for loss in case.held_out]
    return [
        case.stage,
        case.precision,
        both(spread([s.seconds for s in ours]), spread([s.seconds for s in theirs]) if theirs else ""),
        f"{spread(case.speedups)}x" if theirs else "",
        rates(case.num_examples, 2),
        rates(case.num_tokens, 0),
        f"{case.fraction_of_peak:.0%}",
        both(*mebibytes),
        f"1/{peak_of(theirs) / peak_of(ours):.1f}" if theirs else "",
        both(*walls),
        both(*losses),
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table, columns aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    written = [
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    written.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(written) + "\n"


def comparison_table(cases: Sequence[Comparison]) -> str:
    """Write the table of all cases."""
    return markdown(HEADER, [cells_of(case) for case in cases])
