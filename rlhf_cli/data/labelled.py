"""Answers that are called good or bad on their own, each laid beside a stranger: an answer to another prompt.

KTO measures on strangers how far the policy has moved in general. As a pair of `chosen` (the answer itself) and
`rejected` (the stranger behind the same prompt) a row goes through all that is made for pairs; its `p_chosen` is 1
for a good answer and 0 for a bad one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf_cli.data.fields import BadRow, Row, SetAside, is_blank, required, text
from rlhf_cli.data.formats import join_turns
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Labelled, Text


class _Answer(NamedTuple):
    prompt: Text
    text: Text
    is_good: bool
    origin: str


def labelled(row: Row, origin: str) -> Labelled:
    """Read {"prompt", "completion", "label"}, label true (or 1) for a good answer. Raises BadRow and SetAside."""
    label = required(row, "label")
    if label not in (True, False):
        raise BadRow(f"field 'label' is {label!r}, expected true or false")
    prompt, completion = join_turns(text(row, "prompt"), text(row, "completion"), "completion")
    if is_blank(completion):
        raise SetAside("empty completion")
    return (
        Labelled(prompt, (completion,), (), origin) if label else Labelled(prompt, (), (completion,), origin)
    )


def beside_strangers(records: Sequence[Labelled]) -> list[Comparison]:
    """Lay each answer beside the next one to another prompt, around the end; raise DataError where there is none."""
    answers = [
        _Answer(record.prompt, answer, is_good, record.origin)
        for record in records
        for side, is_good in ((record.good, True), (record.bad, False))
        for answer in side
    ]
    return [
        Comparison(one.prompt, one.text, _stranger(answers, i), one.origin, float(one.is_good))
        for i, one in enumerate(answers)
    ]


def _stranger(answers: Sequence[_Answer], i: int) -> Text:
    own = answers[i]
    for step in range(1, len(answers)):
        other = answers[(i + step) % len(answers)]
        alike = isinstance(other.text, str) == isinstance(own.text, str)
        if alike and other.prompt != own.prompt and other.text != own.text:
            return other.text
    raise DataError(
        "KTO compares an answer with those to other prompts, and all rows have one prompt or one answer",
        where=own.origin,
        fix="Give it more prompts.",
    )
