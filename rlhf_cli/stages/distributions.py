"""What evaluations see that a line of metrics cannot hold: evaluation.json of the last one, answers.jsonl of each."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rlhf_cli.algo.metrics import calibration_bins, histogram, pair_accuracy, wilson_interval
from rlhf_cli.data.episode import Episode
from rlhf_cli.records import last_user_text
from rlhf_cli.run.directory import append_json_line, write_atomic
from rlhf_cli.run.session import Run


def record_scores(run: Run, chosen: Tensor, rejected: Tensor, origins: Sequence[str], *, rows: str) -> None:
    """Record the scores of N pairs, [N] each: their histograms, and how sure and how right the model is.

    `origins` says where each pair is from, `file:line`; `rows` which pairs they are: "held out" or "training".
    """
    chosen, rejected = chosen.detach().cpu(), rejected.detach().cpu()
    facts = {
        "rows": rows,
        "num_pairs": len(chosen),
        "score_histogram": histogram({"chosen": chosen, "rejected": rejected}),
        "calibration": calibration_bins(chosen - rejected),
        "sources": accuracy_by_source(chosen - rejected, origins),
    }
    write_atomic(run.dir.evaluation, json.dumps(facts) + "\n")


def accuracy_by_source(margins: Tensor, origins: Sequence[str]) -> list[dict[str, object]]:
    """Tell the accuracy on the pairs of each file, with its 95 % interval: margins [N], N times `file:line`."""
    sources = [origin.rpartition(":")[0] for origin in origins]
    found: list[dict[str, object]] = []
    for source in sorted(set(sources)):
        own = margins[[name == source for name in sources]]
        rate = pair_accuracy(own)
        low, high = wilson_interval(rate * len(own), len(own))
        found.append({"source": source, "pairs": len(own), "accuracy": rate, "low": low, "high": high})
    return found


def record_margins(run: Run, margins: Tensor, *, rows: str) -> None:
    """Record the histogram of the implicit reward margins of N pairs [N]; `rows` as above."""
    facts = {
        "rows": rows,
        "num_pairs": len(margins),
        "margin_histogram": histogram({"margin": margins.cpu()}),
    }
    write_atomic(run.dir.evaluation, json.dumps(facts) + "\n")


def record_answers(path: Path, step: int, answers: Sequence[tuple[Episode, float]]) -> None:
    """Append answers with their scores; after a resume a step may come twice, and then equally."""
    for episode, score in answers:
        line = {
            "step": step,
            "prompt": last_user_text(episode.prompt),
            "answer": episode.completion_text,
            "score": score,
            "finished": episode.finished,
        }
        append_json_line(path, line)
