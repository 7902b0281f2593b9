"""Write the votes as `preferences.jsonl`, the rows train-rm and dpo read, and no preference by accident."""

import json
from pathlib import Path
from typing import Literal

from rlhf_cli.preference.store import Pair, Response, Store, Vote, text_to_json
from rlhf_cli.records import Message, Text
from rlhf_cli.run.directory import write_atomic


def export_preferences(store: Store, path: Path, *, ties: Literal["drop", "half"]) -> int:
    """Replace `path` by one row for each decided pair, in the order of the pairs; return the number of rows.

    A tie becomes a row with p_chosen 0.5 when `ties` is "half". Both bad, skipped and identical pairs are never
    written: none of them says that one answer is better.
    """
    written = {"1", "2", "tie"} if ties == "half" else {"1", "2"}
    votes = [vote for vote in store.votes() if vote.winner in written]
    rows = [preference_row(store.pair(vote.pair_id), vote) for vote in votes]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # A lone surrogate has no UTF-8 form; backslashed it is what JSON itself writes.
    write_atomic(path, text.encode("utf-8", errors="backslashreplace"))
    return len(rows)


def preference_row(pair: Pair, vote: Vote) -> dict[str, object]:
    """Return one row; `chosen` and `rejected` have the shape of the prompt, strings or lists of messages."""
    one, two = pair.responses
    chosen, rejected = (two, one) if vote.winner == "2" else (one, two)
    row: dict[str, object] = {
        "prompt": text_to_json(pair.prompt),
        "chosen": _completion(pair.prompt, chosen.text),
        "rejected": _completion(pair.prompt, rejected.text),
        "pair_id": pair.id,
        "labeler": vote.labeler,
        "source": {"chosen": _source(chosen), "rejected": _source(rejected)},
    }
    if vote.winner == "tie":
        row["p_chosen"] = 0.5
    if vote.reason:
        row["reason"] = vote.reason
    return row


def _completion(prompt: Text, text: str) -> object:
    return text_to_json(text if isinstance(prompt, str) else (Message("assistant", text),))


def _source(response: Response) -> dict[str, object]:
    return {"model": response.model, "temperature": response.temperature}
