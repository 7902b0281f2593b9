"""The export in the shapes of other tools. What a shape cannot say is left out and counted, never bent.

Each function returns the file and the number of rows or pairs it leaves out.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.consensus import Outcome
from rlhf_cli.preference.store import Pair
from rlhf_cli.records import Message, Text

Row = dict[str, object]

_TURNS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
_SHARES = {"1": 1.0, "tie": 0.5, "2": 0.0}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What there is to write: the training rows, and the pairs with the votes behind them."""

    rows: Sequence[Mapping[str, object]]
    pairs: Sequence[tuple[Pair, Outcome]]


def trl(exchange: Exchange) -> tuple[bytes, int]:
    """Write {"prompt", "chosen", "rejected"}; a tie of one half has no place there."""
    rows = [
        {name: row[name] for name in ("prompt", "chosen", "rejected")}
        for row in exchange.rows
        if row.get("p_chosen") != 0.5
    ]
    return _lines(rows), len(exchange.rows) - len(rows)


def hh(exchange: Exchange) -> tuple[bytes, int]:
    """Write two transcripts of Human and Assistant, as HH-RLHF has them.

    They have no place for ties, for system messages, or for text that spells a turn.
    """
    rows = [row for row in exchange.rows if row.get("p_chosen") != 0.5 and _fits_transcript(row)]
    transcripts = [
        {
            side: _transcript(_messages(row["prompt"], "user") + _messages(row[side], "assistant"))
            for side in _SIDES
        }
        for row in rows
    ]
    return _lines(transcripts), len(exchange.rows) - len(rows)


_SIDES = ("chosen", "rejected")


def _fits_transcript(row: Mapping[str, object]) -> bool:
    prompt = _messages(row["prompt"], "user")
    roles = [role for role, _ in prompt]
    alternating = [("user", "assistant")[i % 2] for i in range(len(roles))]
    parts = [*prompt, *(part for side in _SIDES for part in _messages(row[side], "assistant"))]
    return (
        roles == alternating
        and len(roles) % 2 == 1
        and not any(turn.rstrip() in text for _, text in parts for turn in _TURNS.values())
    )


def _messages(value: object, role: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(role, value)]
    assert isinstance(value, list)
    return [(message["role"], message["content"]) for message in value]


def _transcript(messages: Iterable[tuple[str, str]]) -> str:
    return "".join(_TURNS[role] + text for role, text in messages)


def argilla(exchange: Exchange) -> tuple[bytes, int]:
    """Write one record for each pair with everybody's vote on the question `preference`; skips are discarded ones."""
    pairs = [(pair, outcome) for pair, outcome in exchange.pairs if _fits_votes(pair, outcome)]
    records = [
        {
            "id": f"pair-{pair.id}",
            "status": "completed",
            "fields": _fields(pair),
            "metadata": {"pair_id": pair.id},
            "suggestions": {},
            "responses": {"preference": [_argilla_vote(vote) for vote in outcome.votes]},
        }
        for pair, outcome in pairs
    ]
    return _lines(records), len(exchange.pairs) - len(pairs)


def _argilla_vote(vote: Vote) -> Row:
    values = {"1": "response_1", "2": "response_2", "tie": "tie"}
    value = values.get(vote.winner)
    return {"value": value, "user_id": vote.labeler, "status": "submitted" if value else "discarded"}


def label_studio(exchange: Exchange) -> tuple[bytes, int]:
    """Write one task for each pair with everybody's vote; its Pairwise control has no place for ties."""
    pairs = [
        (pair, outcome)
        for pair, outcome in exchange.pairs
        if _fits_votes(pair, outcome) and all(vote.winner != "tie" for vote in outcome.votes)
    ]
    tasks = [
        {
            "id": pair.id,
            "data": _fields(pair),
            "annotations": [_annotation(pair.id, i, vote) for i, vote in enumerate(outcome.votes, 1)],
        }
        for pair, outcome in pairs
    ]
    return json.dumps(tasks, indent=1).encode(), len(exchange.pairs) - len(pairs)


def _annotation(pair_id: int, number: int, vote: Vote) -> Row:
    sides = {"1": "left", "2": "right"}
    result = {
        "id": f"{pair_id}-{number}",
        "type": "pairwise",
        "from_name": "preference",
        "to_name": "response_1,response_2",
        "value": {"selected": sides.get(vote.winner)},
    }
    return {
        "completed_by": vote.labeler,
        "lead_time": vote.seconds,
        "was_cancelled": vote.winner not in sides,
        "result": [result] if vote.winner in sides else [],
    }


def _fits_votes(pair: Pair, outcome: Outcome) -> bool:
    """Say whether a tool that averages the votes comes to our outcome, and has a place for the prompt."""
    shares = [_SHARES[vote.winner] for vote in outcome.votes if vote.winner in _SHARES]
    if not shares or any(vote.winner == "both_bad" for vote in outcome.votes):
        return False
    share = sum(shares) / len(shares)
    average = "tie" if share == 0.5 else "1" if share > 0.5 else "2"
    return average == outcome.winner and _single_turn(pair.prompt) is not None


def _fields(pair: Pair) -> Row:
    one, two = pair.responses
    return {"prompt": _single_turn(pair.prompt), "response_1": one.text, "response_2": two.text}


def _single_turn(prompt: Text) -> str | None:
    match prompt:
        case str():
            return prompt
        case (Message(role="user", content=content),):
            return content
        case _:
            return None


def parquet(exchange: Exchange) -> tuple[bytes, int]:
    """Write the rows with their columns; rows whose prompts are of the rarer kind, string or messages, do not fit."""
    import pyarrow
    import pyarrow.parquet

    strings = [row for row in exchange.rows if isinstance(row["prompt"], str)]
    dialogs = [row for row in exchange.rows if not isinstance(row["prompt"], str)]
    rows = [row for row in max(strings, dialogs, key=len) if _is_unicode(row)]
    names = dict.fromkeys(name for row in rows for name in row) or ("prompt", "chosen", "rejected")
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = pyarrow.Table.from_pydict(columns)  # type: ignore[attr-defined]
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)  # type: ignore[no-untyped-call]
    return file.getvalue(), len(exchange.rows) - len(rows)


def _is_unicode(row: Mapping[str, object]) -> bool:
    """Say whether a row has a UTF-8 form: a lone surrogate has none."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
