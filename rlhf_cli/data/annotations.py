"""Exports of annotation tools, where several people vote on one pair: Label Studio and Argilla.

One row gives one pair; `p_first` is the share of votes for the first answer, a tie counting half.
"""

import re
from collections.abc import Mapping, Sequence

from rlhf_cli.data.fields import BadRow, Row, SetAside, mapping, objects, string
from rlhf_cli.data.preferences import Pair
from rlhf_cli.records import Message

_PROMPT_NAMES = ("prompt", "instruction", "question", "text")
_ANSWER = re.compile(
    r"(response|answer|completion|generation|output|chosen|rejected|text|candidate)[-_ ]?\w*", re.I
)
_FIRST, _SECOND, _TIE = (
    {"a", "1", "left", "first"},
    {"b", "2", "right", "second"},
    {"tie", "equal", "same", "both"},
)


def label_studio(row: Row) -> Pair:
    """Read one task of a Label Studio JSON export with a Pairwise control: `left` is the first name in its toName.

    Cancelled annotations carry results too and are not votes.
    """
    data = mapping(row, "data")
    results = [
        result
        for annotation in objects(row, "annotations")
        if not annotation.get("was_cancelled")
        for result in objects(annotation, "result")
        if result.get("type") == "pairwise"
    ]
    votes = [_side(result) for result in results]
    if not votes:
        raise SetAside("label_studio: no finished vote")
    prompt, names = _prompt_and_answers(data)
    shown = str(results[0].get("to_name", "")).split(",")
    if sorted(shown) == sorted(names):
        names = (shown[0], shown[1])
    return _pair(data, prompt, names, votes)


def _side(result: Row) -> float:
    selected = string(mapping(result, "value"), "selected")
    if selected not in ("left", "right"):
        raise BadRow(f"a vote is {selected!r:.40}, expected left or right")
    return 1.0 if selected == "left" else 0.0


def argilla(row: Row) -> Pair:
    """Read one Argilla record, nested or flattened; only responses with status `submitted` are votes."""
    fields = mapping(row, "fields") if isinstance(row.get("fields"), dict) else row
    prompt, names = _prompt_and_answers(fields)
    votes = [_vote(value, names) for value in (_nested(row) if fields is not row else _flat(row))]
    if not votes:
        raise SetAside("argilla: no submitted vote")
    return _pair(fields, prompt, names, votes)


def _nested(row: Row) -> list[object]:
    """Collect votes; where single responses carry no status, the record must be completed."""
    done = row.get("status") in ("completed", "submitted")
    votes = []
    for name in mapping(row, "responses"):
        for response in objects(mapping(row, "responses"), name):
            status = response.get("status")
            if status == "submitted" or (status is None and done):
                votes.append(response.get("value"))
    return votes


def _flat(row: Row) -> list[object]:
    votes: list[object] = []
    for name in [name for name in row if name.endswith(".responses")]:
        values, statuses = row[name], row.get(f"{name}.status")
        if values is None:
            continue
        if not isinstance(values, list) or not isinstance(statuses, list) or len(values) != len(statuses):
            raise BadRow(f"fields {name!r} and '{name}.status' must be lists of one length")
        votes += [value for value, status in zip(values, statuses, strict=True) if status == "submitted"]
    return votes


def _vote(value: object, names: tuple[str, str]) -> float:
    """Give 1 for the first answer, 0 for the second, 0.5 for a tie; rankings list `{"value", "rank"}`."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, dict) for item in value):
        ranks = {item.get("value"): item.get("rank") for item in value}
        first, second = ranks.get(names[0]), ranks.get(names[1])
        if isinstance(first, int) and isinstance(second, int):
            return 0.5 if first == second else float(first < second)
    if isinstance(value, str | int) and not isinstance(value, bool):
        word = str(value).strip().lower()
        for words, vote in (
            ({names[0].lower()}, 1.0),
            ({names[1].lower()}, 0.0),
            (_FIRST, 1.0),
            (_SECOND, 0.0),
            (_TIE, 0.5),
        ):
            if word in words:
                return vote
    raise BadRow(
        f"a vote is {value!r:.60}, expected {names[0]}, {names[1]}, a, b, 1, 2, tie or a ranking of the two"
    )


def _prompt_and_answers(fields: Mapping[str, object]) -> tuple[str, tuple[str, str]]:
    """Find the prompt field and the two answer fields by their names."""
    prompt = next((name for name in _PROMPT_NAMES if isinstance(fields.get(name), str)), None)
    answers = [n for n, v in fields.items() if n != prompt and isinstance(v, str) and _ANSWER.fullmatch(n)]
    if prompt is None or len(answers) != 2:
        raise BadRow(f"a prompt and two answers are expected; the fields are {', '.join(fields)}")
    return prompt, (answers[0], answers[1])


def _pair(fields: Mapping[str, object], prompt: str, names: tuple[str, str], votes: Sequence[float]) -> Pair:
    question = (Message("user", string(fields, prompt)),)
    return Pair(question, string(fields, names[0]), string(fields, names[1]), sum(votes) / len(votes))
