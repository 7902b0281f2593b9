"""Typed access to the columns of one row, and the checks every conversation passes.

The one rule for rows that give no record:
- A *bad* row breaks its format: not JSON, no object, a field that is missing or of the wrong type, a message list
  whose roles or turns are wrong. `on_bad_row` decides whether that stops the run.
- A row *set aside* is well formed but gives no record: a transcript that cannot be cut, two identical answers, a
  cancelled vote, an empty answer. Data sets are known to hold such rows; they never stop a run.
Both kinds are counted, and listed with origin and reason.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from rlhf_cli.records import Dialog, Message, Text

Row = Mapping[str, object]

ROLES: Mapping[str, str] = MappingProxyType({"system": "system", "user": "user", "assistant": "assistant"})
SHAREGPT_ROLES: Mapping[str, str] = MappingProxyType(
    {**ROLES, "human": "user", "gpt": "assistant", "chatgpt": "assistant"}
)


class BadRow(Exception):
    """The row breaks its format."""


class SetAside(Exception):
    """The row is well formed and gives no record. `kind` is what the report counts, `detail` is about this row."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def required(row: Row, name: str) -> object:
    """Give the value of a field that must be there and not null."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"field {name!r} is {'null' if name in row else 'missing'}")
    return value


def string(row: Row, name: str) -> str:
    """Give a field that must be text."""
    value = required(row, name)
    if not isinstance(value, str):
        raise BadRow(f"field {name!r} is {kind_of(value)}, expected text")
    return value


def text(row: Row, name: str) -> Text:
    """Give a field that is text or a list of messages."""
    value = required(row, name)
    return value if isinstance(value, str) else dialog(value, name)


def integer(row: Row, name: str, allowed: tuple[int, ...]) -> int:
    """Give a whole number out of `allowed`; CSV files spell it as text."""
    number = optional_number(row, name)
    if number not in allowed:
        raise BadRow(f"field {name!r} is {row.get(name)!r}, expected one of {', '.join(map(str, allowed))}")
    return int(number)


def optional_number(row: Row, name: str) -> float | None:
    """Give a finite number, or None where the field is absent, null or an empty CSV cell."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise BadRow(f"field {name!r} is {value!r:.40}, expected a number")


def mapping(row: Row, name: str) -> Row:
    """Give a field that must be an object."""
    value = required(row, name)
    if not isinstance(value, dict):
        raise BadRow(f"field {name!r} is {kind_of(value)}, expected an object")
    return value


def objects(row: Row, name: str) -> list[Row]:
    """Give a field that must be a list of objects."""
    value = required(row, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRow(f"field {name!r} is {kind_of(value)}, expected a list of objects")
    return value


def kind_of(value: object) -> str:
    """Name the JSON kind of a value, for messages."""
    names = {
        bool: "true/false",
        int: "a number",
        float: "a number",
        str: "text",
        dict: "an object",
        list: "a list",
    }
    return names.get(type(value), type(value).__name__)


def dialog(
    value: object, name: str, *, roles: Mapping[str, str] = ROLES, keys: tuple[str, str] = ("role", "content")
) -> Dialog:
    """Read a list of messages; `keys` name the speaker and the words, `roles` translates speakers."""
    if not isinstance(value, list) or not value:
        raise BadRow(
            f"field {name!r} is {kind_of(value) if value != [] else 'empty'}, expected text or messages"
        )
    return tuple(_message(item, f"{name}[{i}]", roles, keys) for i, item in enumerate(value))


def _message(item: object, place: str, roles: Mapping[str, str], keys: tuple[str, str]) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f"{place} is {kind_of(item)}, expected an object with {keys[0]!r} and {keys[1]!r}")
    speaker, content = item.get(keys[0]), item.get(keys[1])
    role = roles.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise BadRow(f"{place}.{keys[0]} is {speaker!r:.40}, expected one of {', '.join(roles)}")
    if isinstance(content, list):
        content = _joined_parts(content, f"{place}.{keys[1]}")
    if not isinstance(content, str):
        raise BadRow(
            f"{place}.{keys[1]} is {'missing' if content is None else kind_of(content)}, expected text"
        )
    return Message(role, content)


def _joined_parts(parts: list[object], place: str) -> str:
    """Join the text parts of a message written as [{"type": "text", "text": ...}]."""
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts
    ]
    if not all(isinstance(piece, str) for piece in texts):
        raise BadRow(f"{place} holds parts that are not text")
    return "".join(piece for piece in texts if isinstance(piece, str))


def check_turns(messages: Dialog, name: str, *, last: str) -> None:
    """Raise BadRow unless user and assistant alternate after an optional system message and `last` closes."""
    start = 1 if messages and messages[0].role == "system" else 0
    for i, message in enumerate(messages[start:], start):
        expected = "user" if (i - start) % 2 == 0 else "assistant"
        if message.role != expected:
            raise BadRow(f"{name}[{i}] is spoken by {message.role}, expected {expected}")
    if not messages or messages[-1].role != last:
        speaker = messages[-1].role if messages else "nobody"
        raise BadRow(f"the last turn of {name} is spoken by {speaker}, expected {last}")


def is_blank(value: Text) -> bool:
    """Tell whether a completion holds nothing but white space in its last turn."""
    words = value if isinstance(value, str) else value[-1].content if value else ""
    return not words.strip()


def as_dialog(value: Text, role: str) -> Dialog:
    """Give messages as they are and a plain string as one message of `role`."""
    return (Message(role, value),) if isinstance(value, str) else value
