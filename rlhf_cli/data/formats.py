"""Rows of one text each: demonstrations and prompts. Every function is pure: one row in, one record part out.

Plain strings stay plain strings and are used exactly as they stand. Questions and instructions become a user turn.
"""

from rlhf_cli.data.fields import (
    SHAREGPT_ROLES,
    BadRow,
    Row,
    SetAside,
    as_dialog,
    check_turns,
    dialog,
    is_blank,
    required,
    string,
    text,
)
from rlhf_cli.records import Demonstration, Dialog, Message, Text


def demonstration(row: Row, name: str, origin: str) -> Demonstration:
    """Read one row in the single-text format `name`. Raises BadRow and SetAside."""
    prompt, completion = _parts(row, name)
    if is_blank(completion):
        raise SetAside("empty completion")
    return Demonstration(prompt, completion, origin)


def _parts(row: Row, name: str) -> tuple[Text, Text]:
    match name:
        case "text":
            return "", string(row, "text")
        case "messages":
            return (), conversation(row)
        case "sharegpt":
            return (), sharegpt(row)
        case "prompt_completion":
            return prompt_completion(row)
        case "instruction":
            return instruction(row), (Message("assistant", string(row, "output")),)
        case "question_answer":
            return question(row), (Message("assistant", string(row, "answer")),)
    raise ValueError(name)


def conversation(row: Row) -> Dialog:
    """Read {"messages": [{"role", "content"}, ...]}, closed by the assistant."""
    messages = dialog(required(row, "messages"), "messages")
    check_turns(messages, "messages", last="assistant")
    return messages


def sharegpt(row: Row) -> Dialog:
    """Read {"conversations": [{"from": "human", "value"}, ...]}, closed by the assistant."""
    turns = dialog(
        required(row, "conversations"), "conversations", roles=SHAREGPT_ROLES, keys=("from", "value")
    )
    check_turns(turns, "conversations", last="assistant")
    return turns


def prompt_completion(row: Row) -> tuple[Text, Text]:
    """Read {"prompt", "completion"}: two strings, or messages on either side.

    A `label` of false, as in data for KTO, says that the completion is a bad one, and sets it aside.
    """
    if row.get("label") is False:
        raise SetAside("a completion that is labelled bad")
    return join_turns(text(row, "prompt"), text(row, "completion"), "completion")


def join_turns(prompt: Text, completion: Text, name: str) -> tuple[Text, Text]:
    """Make both sides strings or both sides messages, and check that their turns alternate."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return prompt, completion
    before, after = as_dialog(prompt, "user"), as_dialog(completion, "assistant")
    check_turns(before, "prompt", last="user")
    check_turns(before + after, f"prompt + {name}", last="assistant")
    return before, after


def instruction(row: Row) -> Dialog:
    """Read {"instruction", "input"} as one user turn; a blank line stands before the input."""
    words = string(row, "instruction")
    context = string(row, "input") if row.get("input") is not None else ""
    return (Message("user", f"{words}\n\n{context}" if context.strip() else words),)


def question(row: Row) -> Dialog:
    """Read {"question"} as one user turn."""
    return (Message("user", string(row, "question")),)


def bare_prompt(row: Row) -> Text:
    """Read {"prompt"} (text, or messages that end with the user's turn) or {"question"}."""
    if row.get("prompt") is None and row.get("question") is not None:
        return question(row)
    prompt = text(row, "prompt")
    if not isinstance(prompt, str):
        check_turns(prompt, "prompt", last="user")
    return prompt


def open_turns(messages: Dialog, name: str) -> Dialog:
    """Leave out the assistant's closing turn, so that a conversation ends where an answer is due."""
    if messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages:
        raise BadRow(f"{name} holds no user turn")
    check_turns(messages, name, last="user")
    return messages


def prompt_of(row: Row, name: str) -> Text:
    """Take the prompt out of a row in the single-text format `name`."""
    match name:
        case "prompts" | "prompt_completion":
            return bare_prompt(row)
        case "messages":
            return open_turns(dialog(required(row, "messages"), "messages"), "messages")
        case "sharegpt":
            value = required(row, "conversations")
            turns = dialog(value, "conversations", roles=SHAREGPT_ROLES, keys=("from", "value"))
            return open_turns(turns, "conversations")
        case "instruction":
            return instruction(row)
        case "question_answer":
            return question(row)
    raise ValueError(name)
