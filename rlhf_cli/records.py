"""Frozen text records: what readers produce and stages exchange, before any tokenizer is involved.

A `Text` is either a plain string, used exactly as it stands, or a dialog (a tuple of messages),
which goes through the chat template. Worked example of one dialog demonstration:

    Demonstration(
        prompt=(Message("user", "What is 2+2?"),),
        completion=(Message("assistant", "4"),),
        origin="demos.jsonl:7",
    )
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


Dialog = tuple[Message, ...]
Text = str | Dialog


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the completion to imitate.

    A `messages` row has an empty prompt and the whole conversation as completion: every assistant
    turn in it is trained. A `text` row has prompt "" and the text as completion.
    """

    prompt: Text
    completion: Text
    origin: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two completions of one prompt; `p_chosen` is P(chosen is better): 1.0 sure, 0.5 a tie."""

    prompt: Text
    chosen: Text
    rejected: Text
    origin: str
    p_chosen: float = 1.0
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """Answers to one prompt, each called good or bad on its own; a row may hold one answer, or one of each."""

    prompt: Text
    good: tuple[Text, ...]
    bad: tuple[Text, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to answer; `extra` holds the row's other columns, for reward functions."""

    prompt: Text
    origin: str
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def last_user_text(prompt: Text) -> str:
    """Return a prompt as one string, for functions that judge: itself, or what the user said last ("" if nothing)."""
    if isinstance(prompt, str):
        return prompt
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")
