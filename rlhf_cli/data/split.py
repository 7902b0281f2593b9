"""Holding out evaluation rows by prompt, so that no prompt is trained on and evaluated on."""

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from rlhf_cli.errors import DataError
from rlhf_cli.records import Demonstration, Text


class HasPrompt(Protocol):
    """Any record that begins with a prompt."""

    @property
    def prompt(self) -> Text: ...


R = TypeVar("R", bound=HasPrompt)


def split_by_prompt(records: Sequence[R], fraction: float, seed: int) -> tuple[list[R], list[R]]:
    """Give (train, eval) with about `fraction` of the prompts in eval, in the order of `records`.

    A prompt is held out when the hash of seed and prompt is small: adding rows never moves the others. Where that
    leaves one side empty, one prompt moves over. Raises DataError when there is only one prompt to split.
    """
    if fraction == 0.0 or not records:
        return list(records), []
    keys = [prompt_key(record) for record in records]
    ranks = {key: _rank(key, seed) for key in keys}
    if len(ranks) < 2:
        raise DataError(
            "one prompt cannot be split into training and evaluation",
            where="data.eval_fraction",
            fix="Name evaluation sources in data.eval, or set data.eval_fraction to 0.",
        )
    by_rank = sorted(ranks, key=lambda key: (ranks[key], key))
    held_out = {key for key in by_rank if ranks[key] < fraction} or {by_rank[0]}
    if len(held_out) == len(by_rank):
        held_out.remove(by_rank[-1])
    train = [record for record, key in zip(records, keys, strict=True) if key not in held_out]
    return train, [record for record, key in zip(records, keys, strict=True) if key in held_out]


def prompt_key(record: HasPrompt) -> str:
    """Give the prompt without its case and spacing; equal keys are one prompt.

    A demonstration without a prompt is known by its opening turn, or by its whole text.
    """
    prompt = record.prompt
    if not prompt and isinstance(record, Demonstration):
        prompt = _opening(record.completion)
    words = prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
    return " ".join(words.split()).casefold()


def _opening(completion: Text) -> Text:
    if isinstance(completion, str):
        return completion
    end = next((i for i, message in enumerate(completion) if message.role == "user"), len(completion) - 1)
    return completion[: end + 1]


def _rank(key: str, seed: int) -> float:
    """Map a prompt to [0, 1), evenly, and differently for every seed."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
