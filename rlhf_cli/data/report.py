"""The data report: what was read, what was dropped and why, and rows as the model sees them.

Trained tokens stand between heavy brackets: `<|user|> hi <|assistant|> ⟦ hello </s>⟧`.
"""

import statistics
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.encode import EncodedText, Encoder
from rlhf_cli.data.files import Reading

_MOST_REJECTED_SHOWN = 20


def data_report(name: str, reading: Reading[object], encoder: Encoder, *, num_kept: int) -> dict[str, object]:
    """Collect the facts of one data set as a JSON object."""
    tally = encoder.tally
    lengths = tally.lengths or [0]
    return {
        "name": name,
        "formats": list(reading.formats),
        "rows_read": reading.num_rows,
        "rows_rejected": len(reading.rejected),
        "rejected": [f"{r.origin}: {r.reason}" for r in reading.rejected[:_MOST_REJECTED_SHOWN]],
        "counts": {**reading.counts, **tally.counts},
        "rows_kept": num_kept,
        "tokens": {
            "total": sum(lengths),
            "median": statistics.median(lengths),
            "longest": max(lengths),
            "limit": encoder.max_length,
        },
    }


def report_text(report: dict[str, object]) -> str:
    """Render a report as a few lines for people."""
    counts = report["counts"]
    assert isinstance(counts, dict)
    tokens = report["tokens"]
    assert isinstance(tokens, dict)
    formats = report["formats"]
    assert isinstance(formats, list)
    rejected = report["rejected"]
    assert isinstance(rejected, list)
    lines = [f"data ({report['name']}): {report['rows_read']} rows read, {report['rows_kept']} kept"]
    lines += [f"  format   {sentence}" for sentence in formats]
    lines.append(
        f"  tokens   {tokens['total']} in all, median {tokens['median']:g}, longest {tokens['longest']},"
        f" limit {tokens['limit']}"
    )
    lines += [f"  {count:>7}  {reason}" for reason, count in sorted(counts.items()) if count]
    if report["rows_rejected"]:
        lines.append(f"  {report['rows_rejected']:>7}  rejected, the first of them:")
        lines += [f"           {row}" for row in rejected[:5]]
    return "\n".join(lines)


def render_sample(
    row: EncodedText,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mark: Callable[[str], str] = "⟦{}⟧".format,
    plain: Callable[[str], str] = str,
) -> str:
    """Show one row with its trained tokens marked, between brackets unless told otherwise."""
    parts: list[str] = []
    start = 0
    for t in range(1, len(row.input_ids) + 1):
        if t == len(row.input_ids) or row.loss_mask[t] != row.loss_mask[start]:
            text = str(tokenizer.decode(list(row.input_ids[start:t]), clean_up_tokenization_spaces=False))
            parts.append(mark(text) if row.loss_mask[start] else plain(text))
            start = t
    return "".join(parts)


def samples_text(
    rows: Sequence[EncodedText], tokenizer: PreTrainedTokenizerBase, *, num_rows: int = 5
) -> str:
    """Render the first rows, each under its origin."""
    blocks = [
        f"--- {row.origin} ({len(row.input_ids)} tokens)\n{render_sample(row, tokenizer)}"
        for row in rows[:num_rows]
    ]
    return "\n\n".join(blocks) + "\n"
