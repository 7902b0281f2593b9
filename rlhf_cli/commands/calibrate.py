"""`rlhf calibrate`: is this judge good enough to label in people's place?"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_cli.commands.options import ConfigFile, Json, Overrides

if TYPE_CHECKING:
    from rlhf_cli.stages.calibrating import Report

_MARKS = {True: "ok  ", False: "FAIL", None: "?   "}


def calibrate(
    ctx: typer.Context,
    config: ConfigFile,
    labels: Annotated[
        str, typer.Option(metavar="RUN|FILE", help="A collect run with votes of people, or preference rows.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge only this many of the pairs, drawn by the seed.")
    ] = None,
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Hold the judge of a collect configuration against labels of people: go or no go.

    Replies are kept beside the run_dir, so a second run pays for nothing again. What is demanded stands under
    labeler.calibration.

    \b
    Example:
      rlhf calibrate --config judge.yaml --labels runs/by-hand --limit 100
    """
    from rlhf_cli.config.load import load_config
    from rlhf_cli.stages.calibrating import calibrate_judge

    loaded = load_config("collect", config, overrides or ())
    report = calibrate_judge(loaded.config, labels, limit, _say)
    ctx.obj.show("calibration", as_record(report), in_words(report))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def as_record(report: "Report") -> dict[str, object]:
    """Return the report as JSON values."""
    return {
        "judge": report.judge,
        "go": report.is_go,
        "figures": asdict(report.figures),
        "demands": [asdict(demand) for demand in report.demands],
        "spent": asdict(report.spent),
        "calls": str(report.calls),
    }


def in_words(report: "Report") -> str:
    """Write the report for reading."""
    figures = report.figures
    rows = [
        ("agreement with people", figures.agreement, figures.agreement_interval),
        ("  always the longer answer", figures.longest, None),
        ("  people with each other", figures.people, None),
        ("Cohen's kappa", figures.kappa, figures.kappa_interval),
        ("ties", figures.tie_rate, None),
        ("verdicts that change with the order", figures.flip_rate, None),
        ("prefers the longer answer", figures.longer_judge, None),
        ("  people prefer it", figures.longer_people, None),
        ("pairs without a verdict", figures.error_rate, None),
    ]
    lines = [f"{report.judge}: {figures.num_pairs} pairs, {figures.num_decided} decided by people", ""]
    for name, value, interval in rows:
        told = "    -" if value is None else f"{value:5.3f}"
        between = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(f"{name:<37}{told}{between}")
    lines += ["", *(f"{_MARKS[demand.met]}  {demand.words}" for demand in report.demands)]
    lines += ["", f"{'GO' if report.is_go else 'NO GO'}; {report.spent}, kept in {report.calls}"]
    return "\n".join(lines)
