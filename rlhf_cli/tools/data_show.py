"""`rlhf data show`: the format and why, then rows as people read them, or as a model is trained on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf_cli.preference.inert import inert
from rlhf_cli.records import Comparison, Demonstration, Text
from rlhf_cli.tools.data_set import DataSet, Record, encoder_for, vocabulary_for

if TYPE_CHECKING:
    from rlhf_cli.data.encode import EncodedText, Encoder

Paint = Callable[[str], str]


@dataclass(frozen=True)
class Shown:
    """A row to show: its origin, and titled texts."""

    origin: str
    parts: list[tuple[str, str]]


def show(data_set: DataSet, num_rows: int, paint: Paint) -> tuple[list[str], list[Shown]]:
    """Give the sentences about formats, and the first rows; `paint` marks what is trained."""
    readings = [it for it in (data_set.train_reading, data_set.eval_reading) if it is not None]
    formats = [sentence for reading in readings for sentence in reading.formats]
    records = data_set.train[:num_rows]
    if data_set.request.model is None:
        return formats, [Shown(it.origin, _parts(it)) for it in records]
    vocabulary = vocabulary_for(data_set)
    encoder = encoder_for(data_set, vocabulary)
    return formats, [_as_trained(record, encoder, data_set, paint) for record in records]


def _parts(record: Record) -> list[tuple[str, str]]:
    parts = _turns(record.prompt, "prompt")
    if isinstance(record, Demonstration):
        parts += _turns(record.completion, "completion")
    elif isinstance(record, Comparison):
        surely = "" if record.p_chosen == 1.0 else f" (better with probability {record.p_chosen:g})"
        parts += _turns(record.chosen, f"chosen{surely}") + _turns(record.rejected, "rejected")
    return parts


def _turns(text: Text, title: str) -> list[tuple[str, str]]:
    if isinstance(text, str):
        return [(title, inert(text))] if text else []
    return [(f"{title}, {message.role}", inert(message.content)) for message in text]


def _as_trained(record: Record, encoder: "Encoder", data_set: DataSet, paint: Paint) -> Shown:
    """Show what the model reads of one record; a record the stage would drop shows the reason."""
    before = dict(encoder.tally.counts)
    rows: list[tuple[str, EncodedText]] = []
    if isinstance(record, Demonstration):
        found = encoder.demonstrations([record], loss_on=data_set.request.loss_on)
        rows = [("trained on", row) for row in found]
    elif isinstance(record, Comparison):
        rows = [
            pair_row
            for pair in encoder.comparisons([record])
            for pair_row in (("chosen", pair.chosen), ("rejected", pair.rejected))
        ]
    else:
        room = encoder.max_length - data_set.request.room_for_answer
        prompts = encoder.prompts([record], max_prompt_length=room)
        rows = [("asked", _bare(prompt.input_ids, record.origin)) for prompt in prompts]
    if not rows:
        reasons = [
            name for name, n in encoder.tally.counts.items() if n > before.get(name, 0) and "drop" in name
        ]
        return Shown(record.origin, [(", ".join(reasons), "")])
    return Shown(
        record.origin, [(_title(name, row, encoder), _render(row, encoder, paint)) for name, row in rows]
    )


def _bare(input_ids: list[int], origin: str) -> "EncodedText":
    from rlhf_cli.data.encode import EncodedText

    return EncodedText(input_ids, [False] * len(input_ids), len(input_ids), origin)


def _title(name: str, row: "EncodedText", encoder: "Encoder") -> str:
    num_trained = sum(row.loss_mask)
    words = f"{name}: {len(row.input_ids)} tokens"
    if num_trained:
        stops = row.loss_mask[-1] and row.input_ids[-1] in encoder.stop_ids
        words += f", {num_trained} trained, {'ends in EOS' if stops else 'cut: no EOS'}"
    return words


def _render(row: "EncodedText", encoder: "Encoder", paint: Paint) -> str:
    from rlhf_cli.data.report import render_sample

    return render_sample(row, encoder.tokenizer, mark=lambda text: paint(inert(text)), plain=inert)


def in_words(formats: Sequence[str], rows: Sequence[Shown], title: Paint) -> str:
    """Write the rows for reading."""
    lines = list(formats)
    for row in rows:
        lines += ["", title(f"--- {row.origin}")]
        for name, text in row.parts:
            lines += [title(f"[{name}]"), *([text] if text else [])]
    return "\n".join(lines)


def brackets(text: str) -> str:
    """Mark trained text where there are no colours."""
    return f"⟦{text}⟧"


def green(text: str) -> str:
    """Mark trained text on a terminal: on a ground of its own, so that spaces and line ends show."""
    return "\n".join(f"\x1b[30;42m{line}\x1b[0m" for line in text.split("\n"))


def dim(text: str) -> str:
    """Set a title apart on a terminal."""
    return f"\x1b[1m{text}\x1b[0m"
