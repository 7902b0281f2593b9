"""Write the votes as `preferences.jsonl`, the rows train-rm and dpo read, and count what is left out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_cli.preference.store import Pair, Response, Store, Vote, text_to_json
from rlhf_cli.records import Message, Text
from rlhf_cli.run.directory import write_atomic


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the pairs: all of them are in exactly one of `decided` ... `undecided`."""

    decided: int
    ties: int
    both_bad: int
    skipped: int
    identical: int
    undecided: int


def export_preferences(store: Store, path: Path, *, ties: Literal["drop", "half"]) -> Counts:
    """Replace `path` by one row for each decided pair, in the order of the pairs.

    A tie becomes a row with p_chosen 0.5 when `ties` is "half". Both bad, skipped and identical pairs are never
    written: none of them says that one answer is better.
    """
    votes = store.votes()
    kept = [v for v in votes if v.winner in ("1", "2") or (v.winner == "tie" and ties == "half")]
    rows = [preference_row(store.pair(vote.pair_id), vote) for vote in kept]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # A lone surrogate has no UTF-8 form; backslashed it is what JSON itself writes.
    write_atomic(path, text.encode("utf-8", errors="backslashreplace"))
    return count(store, votes)


def count(store: Store, votes: list[Vote]) -> Counts:
    """Count the pairs by what became of them."""
    winners = [vote.winner for vote in votes]
    return Counts(
        decided=winners.count("1") + winners.count("2"),
        ties=winners.count("tie"),
        both_bad=winners.count("both_bad"),
        skipped=winners.count("skip"),
        identical=store.num_pairs(identical=True),
        undecided=store.num_pairs(identical=False) - len(votes),
    )


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
