"""`rlhf generate` and `rlhf compare`: what models answer to prompts, one below the other or side by side."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.store import text_to_json
from rlhf_cli.records import Prompt, Text
from rlhf_cli.tools.manner import Manner
from rlhf_cli.tools.speaker import Speaker

_GAP = " │ "


@dataclass(frozen=True)
class Answer:
    """One model's answer; `finished` is False where it ran out of room."""

    model: str
    prompt: Text
    origin: str
    sample: int
    completion: str
    num_tokens: int
    finished: bool

    def as_record(self) -> dict[str, object]:
        """Give the answer as a row that other commands read."""
        return {**vars(self), "prompt": text_to_json(self.prompt)}


def answers(speakers: Sequence[Speaker], records: Sequence[Prompt], manner: Manner) -> Iterator[list[Answer]]:
    """Yield the answers to each prompt, of every model and every sample. Raises DataError where none has room."""
    streams = [
        (speaker, sample, speaker.answer(records, manner, sample=sample))
        for sample in range(manner.samples)
        for speaker in speakers
    ]
    num_answers = 0
    for record in records:
        row = []
        for speaker, sample, stream in streams:
            episode = next(stream)
            if episode:
                row.append(_answer(speaker, record, sample, episode))
        num_answers += len(row)
        yield row
    if not num_answers:
        raise DataError(
            "no prompt leaves room for an answer", fix="Shorten the prompts: what a model reads holds both."
        )


def _answer(speaker: Speaker, record: Prompt, sample: int, episode: Episode) -> Answer:
    return Answer(
        speaker.name,
        record.prompt,
        record.origin,
        sample,
        episode.completion_text,
        len(episode.completion_ids),
        episode.finished,
    )


def one_below_the_other(row: Sequence[Answer]) -> str:
    """Write the answers to one prompt for reading."""
    lines = [f"--- {row[0].origin}", plain_text(row[0].prompt)]
    several = len(row) > 1
    for answer in row:
        if several:
            lines.append(f"[{answer.model}{f', sample {answer.sample + 1}' if answer.sample else ''}]")
        lines.append(inert(answer.completion) + _ending(answer))
    return "\n".join(lines) + "\n"


def side_by_side(row: Sequence[Answer], width: int) -> str:
    """Write the answers to one prompt in columns that fill `width` characters."""
    column = max(16, (width - len(_GAP) * (len(row) - 1)) // len(row))
    cells = [
        [it.model, "", *_wrapped(it.completion + _ending(it), column), f"({it.num_tokens} tokens)"]
        for it in row
    ]
    height = max(map(len, cells))
    lines = [
        _GAP.join((cell[i] if i < len(cell) else "").ljust(column) for cell in cells).rstrip()
        for i in range(height)
    ]
    return "\n".join([f"--- {row[0].origin}", plain_text(row[0].prompt), "", *lines]) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    lines = [textwrap.wrap(line, width) or [""] for line in inert(text).split("\n")]
    return [part for line in lines for part in line]


def _ending(answer: Answer) -> str:
    return "" if answer.finished else " …"


def plain_text(text: Text) -> str:
    """Write a prompt for reading, a conversation turn by turn."""
    if isinstance(text, str):
        return inert(text)
    return "\n".join(f"{message.role}: {inert(message.content)}" for message in text)
