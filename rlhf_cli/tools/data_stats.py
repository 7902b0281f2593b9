"""`rlhf data stats`: what is in a data set, and what a stage would make of it."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rlhf_cli.data.files import Reading
from rlhf_cli.data.split import prompt_key
from rlhf_cli.records import Comparison, Demonstration, Text
from rlhf_cli.tools.data_set import DataSet, Record, encoder_for, vocabulary_for
from rlhf_cli.tools.text_table import number

_NUM_BARS = 8
_BAR_WIDTH = 40
_EOS = "rows that end in a trained EOS"
_CUT = "cut to the limit"


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows in `unit`; `bars` are (from, to, rows) of equal width."""

    unit: str
    median: float
    p90: float
    longest: int
    bars: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Repeats:
    """Rows that equal an earlier one, and different prompts among all."""

    rows: int
    prompts: int


@dataclass(frozen=True)
class Encoded:
    """What a tokenizer makes of the rows; a pair counts twice in `cut`, `with_eos` and `texts`."""

    model: str
    limit: int
    kept: int
    dropped: dict[str, int]
    cut: int
    texts: int
    with_eos: int
    trained_tokens: int


@dataclass(frozen=True)
class Stats:
    """What there is to say about one split; None where it does not apply."""

    name: str
    kind: str
    formats: list[str]
    rows_read: int
    rows_kept: int
    rejected: dict[str, int]
    repeats: Repeats
    lengths: Lengths
    ties: int | None
    identical: int | None
    chosen_longer_rate: float | None
    encoded: Encoded | None


@dataclass(frozen=True)
class Report:
    """The splits, and how many evaluation prompts are in training as well."""

    splits: list[Stats]
    num_overlap: int | None
    num_eval_prompts: int | None


def measure(data_set: DataSet) -> Report:
    """Measure training and evaluation rows, with the model's tokenizer where there is one."""
    splits = [_stats("train", data_set.train, data_set.train_reading, data_set)]
    if not data_set.eval:
        return Report(splits, None, None)
    held_out = data_set.eval_reading or Reading(
        data_set.eval, len(data_set.eval), ["split from the training rows by prompt"], [], {}
    )
    splits.append(_stats("eval", data_set.eval, held_out, data_set))
    train, evaluation = ({prompt_key(it) for it in rows} for rows in (data_set.train, data_set.eval))
    return Report(splits, len(train & evaluation), len(evaluation))


def _stats(name: str, records: Sequence[Record], reading: Reading[Record], data_set: DataSet) -> Stats:
    pairs = [it for it in records if isinstance(it, Comparison)]
    decided = [it for it in pairs if it.p_chosen != 0.5]
    sizes = [(_size(it.chosen), _size(it.rejected)) for it in decided]
    unequal = [(one, other) for one, other in sizes if one != other]
    encoded, token_lengths = _encode(records, data_set) if data_set.request.model else (None, [])
    return Stats(
        name=name,
        kind=data_set.kind,
        formats=list(reading.formats),
        rows_read=reading.num_rows,
        rows_kept=len(records),
        rejected={reason: count for reason, count in reading.counts.items() if count},
        repeats=_repeats(records),
        lengths=_lengths(token_lengths, "tokens")
        if token_lengths
        else _lengths(_sizes(records), "characters"),
        ties=len(pairs) - len(decided) if pairs else None,
        identical=sum(it.chosen == it.rejected for it in pairs) if pairs else None,
        chosen_longer_rate=sum(a > b for a, b in unequal) / len(unequal) if unequal else None,
        encoded=encoded,
    )


def _texts(record: Record) -> tuple[Text, ...]:
    if isinstance(record, Demonstration):
        return (record.prompt, record.completion)
    return (
        (record.prompt, record.chosen, record.rejected)
        if isinstance(record, Comparison)
        else (record.prompt,)
    )


def _size(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(message.content) for message in text)


def _sizes(records: Sequence[Record]) -> list[int]:
    """Count the characters of what a model reads at once: a prompt with one of its answers."""
    return [
        _size(record.prompt) + size
        for record in records
        for size in ([_size(text) for text in _texts(record)[1:]] or [0])
    ]


def _repeats(records: Sequence[Record]) -> Repeats:
    rows = Counter(_texts(record) for record in records)
    return Repeats(len(records) - len(rows), len({prompt_key(record) for record in records}))


def _lengths(values: Sequence[int], unit: str) -> Lengths:
    ordered = sorted(values)
    shortest, longest = ordered[0], ordered[-1]
    width = -(-(longest - shortest + 1) // _NUM_BARS)
    counts = Counter((value - shortest) // width for value in ordered)
    starts = range(shortest, longest + 1, width)
    bars = [(start, start + width - 1, counts[i]) for i, start in enumerate(starts)]
    p90 = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
    return Lengths(unit, statistics.median(ordered), p90, longest, bars)


def _encode(records: Sequence[Record], data_set: DataSet) -> tuple[Encoded, list[int]]:
    request = data_set.request
    encoder = encoder_for(data_set, vocabulary_for(data_set))
    if data_set.kind == "demonstrations":
        demonstrations = [it for it in records if isinstance(it, Demonstration)]
        kept = len(encoder.demonstrations(demonstrations, loss_on=request.loss_on))
    elif data_set.kind == "comparisons":
        kept = len(encoder.comparisons([it for it in records if isinstance(it, Comparison)]))
    else:
        prompts = [it for it in records if not isinstance(it, Demonstration | Comparison)]
        limit = encoder.max_length - request.room_for_answer
        kept = len(encoder.prompts(prompts, max_prompt_length=limit))
    counts, lengths = encoder.tally.counts, encoder.tally.lengths
    dropped = {reason: n for reason, n in counts.items() if n and reason.startswith("dropped")}
    model = request.model.path if request.model and request.model.path else "from_scratch"
    facts = (kept, dropped, counts[_CUT], len(lengths), counts[_EOS], counts["trained tokens"])
    return Encoded(model, encoder.max_length, *facts), lengths


def as_record(report: Report) -> dict[str, object]:
    """Give the report as plain data."""
    return asdict(report)


def in_words(report: Report) -> str:
    """Write the report for reading."""
    blocks = ["\n".join(_lines_of(stats)) for stats in report.splits]
    if report.num_overlap is not None:
        share = f"{report.num_overlap} of {report.num_eval_prompts} evaluation prompts are in train too"
        blocks.append(share + (": the evaluation flatters the model" if report.num_overlap else ""))
    return "\n\n".join(blocks)


def _lines_of(stats: Stats) -> list[str]:
    lines = [f"{stats.name}: {stats.rows_kept} {stats.kind} from {stats.rows_read} rows"]
    lines += [f"  {sentence}" for sentence in stats.formats]
    lines += [f"  {reason}: {count}" for reason, count in stats.rejected.items()]
    lines.append(
        f"  {stats.repeats.prompts} different prompts; {stats.repeats.rows} rows repeat an earlier one"
    )
    if stats.ties is not None:
        lines.append(f"  {stats.ties} ties; {stats.identical} pairs of two equal answers")
    if stats.chosen_longer_rate is not None:
        lines.append(f"  the chosen answer is the longer one in {stats.chosen_longer_rate:.0%} of the pairs")
    if stats.encoded:
        lines += _lines_of_encoded(stats.encoded, stats.kind)
    lines += _histogram(stats.lengths)
    return lines


def _lines_of_encoded(encoded: Encoded, kind: str) -> list[str]:
    lines = [f"  with the tokenizer of {encoded.model}, at most {encoded.limit} tokens: {encoded.kept} kept"]
    lines += [f"    {reason}: {count}" for reason, count in encoded.dropped.items()]
    if kind == "prompts":
        return lines
    lines.append(f"    {_CUT}: {encoded.cut} of {encoded.texts} texts")
    lines.append(f"    {_EOS}: {encoded.with_eos} of {encoded.texts}")
    if encoded.texts and not encoded.with_eos:
        lines.append("    NO row teaches the model to stop: raise data.max_length, or change the template")
    lines.append(f"    trained tokens: {encoded.trained_tokens}")
    return lines


def _histogram(lengths: Lengths) -> list[str]:
    most = max(count for _, _, count in lengths.bars)
    width = len(str(lengths.longest)) + 1
    middle, tail = number(lengths.median), f"nine of ten up to {lengths.p90}, longest {lengths.longest}"
    head = f"  {lengths.unit}: median {middle}, {tail}"
    return [head] + [
        f"    {low:>{width}} - {high:<{width}} {'█' * -(-count * _BAR_WIDTH // most)} {count}"
        for low, high, count in lengths.bars
    ]
