"""Wording for values that do not fit: what stands there, what was expected, and how to write it."""

import difflib
import re
from typing import Any, NamedTuple

from pydantic_core import ErrorDetails

from rlhf_cli.config.base import Section
from rlhf_cli.config.model_tree import field_shape, kind_of
from rlhf_cli.config.problems import KeyPath
from rlhf_cli.config.render import inline
from rlhf_cli.config.yaml_source import AmbiguousScalar, resolve_scalar

_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a map",
    "model": "a map of keys",
}
_TRUE_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
SHOWN = 60


class Reading(NamedTuple):
    """A value that was refused: its path, the section it is in, and its text when it stands unquoted."""

    path: KeyPath
    owner: type[Section] | None
    value: Any
    plain: str | None


class Answer(NamedTuple):
    """Where the mistake is, what it is, and what to do."""

    path: KeyPath
    message: str
    help: str


def describe(reading: Reading, errors: list[ErrorDetails]) -> Answer:
    """Describe one refused value; several errors are the members of a union, none of which it fits."""
    for error in errors:
        answer = _bound(reading, error) or _size(reading, error) or _kind(reading, error)
        if answer:
            return answer
    wanted = [_expectation(error) for error in errors]
    if "" in wanted:
        return Answer(reading.path, errors[0]["msg"], "")
    message = f"{_shown(reading)} is not {' or '.join(wanted)}"
    if len(errors) == 1 and errors[0]["type"] == "literal_error" and not wanted[0].startswith("one of"):
        message += ", the only choice"
    return Answer(reading.path, message, _way_out(reading, errors))


def _bound(reading: Reading, error: ErrorDetails) -> Answer | None:
    if error["type"] == "finite_number":
        return Answer(reading.path, f"must be a finite number, not {_shown(reading)}", "")
    if error["type"] not in _BOUNDS:
        return None
    name, phrase = _BOUNDS[error["type"]]
    bound = error["ctx"][name]
    bound = int(bound) if bound == int(bound) else bound
    return Answer(reading.path, f"{phrase} {bound}, not {_shown(reading)}", "")


def _size(reading: Reading, error: ErrorDetails) -> Answer | None:
    size = len(reading.value) if isinstance(reading.value, list) else 0
    match error["type"]:
        case "string_too_short":
            return Answer(reading.path, "must not be empty", "")
        case "string_pattern_mismatch":
            message = f"{_shown(reading)} is not of the form module:function or file.py:function"
            return Answer(
                reading.path, message, "put a colon and the function's name behind the module or file"
            )
        case "too_short":
            least = error["ctx"]["min_length"]
            return Answer(reading.path, f"needs at least {_items(least)}, not {size}", "")
        case "too_long":
            return Answer(reading.path, f"takes at most {_items(error['ctx']['max_length'])}, not {size}", "")
        case "missing":
            message = f"{_items(int(reading.path[-1]) + 1)} needed, not {reading.path[-1]}"
            return Answer(reading.path[:-1], message, "")
    return None


def _kind(reading: Reading, error: ErrorDetails) -> Answer | None:
    """Describe a missing or wrong `kind`."""
    if error["type"] == "union_tag_invalid":
        tags = re.findall("'([^']*)'", error["ctx"]["expected_tags"])
        tag = str(error["ctx"]["tag"])
        return Answer((*reading.path, "kind"), f"{tag!r} is not {_one_of(tags)}", _meant(tag, tags))
    if error["type"] == "union_tag_not_found" and isinstance(reading.value, dict):
        tags = _kinds(reading)
        return Answer(reading.path, "required key `kind` is missing", f"add `kind:`, {_one_of(tags)}")
    return None


def _expectation(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return _one_of(re.findall("'([^']*)'", error["ctx"]["expected"]))
    if error["type"] == "union_tag_not_found":
        return _TYPES["model"]
    return _TYPES.get(error["type"].partition("_")[0], "")


def _way_out(reading: Reading, errors: list[ErrorDetails]) -> str:
    """Suggest how to write what was probably meant."""
    value = reading.value
    kinds = {error["type"].partition("_")[0] for error in errors}
    if value is None:
        return _for_null(reading)
    if kinds & {"int", "float"} and (number := _number(value)) is not None:
        return f"write `{number}`"
    if "bool" in kinds and str(value).lower() in _TRUE_WORDS:
        return f"write `{_TRUE_WORDS[str(value).lower()]}`"
    for error in errors:
        if error["type"] == "literal_error" and isinstance(value, str):
            return _meant(value, re.findall("'([^']*)'", error["ctx"]["expected"]))
    if kinds & {"model", "dict", "list"}:
        return _for_section(reading, is_list="list" in kinds)
    if "string" in kinds and reading.plain:
        return f'quote it: "{reading.plain}"'
    return ""


def _for_null(reading: Reading) -> str:
    key = reading.path[-1]
    info = reading.owner.model_fields.get(str(key)) if reading.owner else None
    if info is None or info.is_required():
        return "give it a value"
    if isinstance(info.default, Section):
        return "give it keys, or remove the line"
    default = info.get_default(call_default_factory=True)
    shown = inline(list(default) if isinstance(default, tuple) else default)
    return f"give it a value, or remove the line to get {shown}"


def _for_section(reading: Reading, *, is_list: bool) -> str:
    """Suggest the map, or the list of maps, that a lone value stands for."""
    key = next((part for part in reversed(reading.path) if isinstance(part, str)), "")
    shape = field_shape(reading.owner, key) if reading.owner else None
    if not isinstance(reading.value, str):
        is_lone_map = is_list and isinstance(reading.value, dict)
        return "put `- ` before each item" if is_lone_map else ""
    if shape is None or not shape.variants:
        return f"write `[{inline(reading.value)}]`" if is_list else ""
    kinds = [kind_of(variant) for variant in shape.variants]
    name = "kind" if reading.value in kinds else "path"
    if name == "path" and not any("path" in variant.model_fields for variant in shape.variants):
        return ""
    item = f"{{{name}: {inline(reading.value)}}}"
    return f"write `[{item}]`" if is_list else f"write `{item}`"


def _number(value: Any) -> int | float | None:
    """Read a number that is written as 1_000, "1000" or 1e3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return None
    try:
        number = resolve_scalar(value.replace("_", "").replace(",", ""))
    except AmbiguousScalar:
        return None
    return number if isinstance(number, int | float) and not isinstance(number, bool) else None


def _kinds(reading: Reading) -> list[str]:
    key = next((part for part in reversed(reading.path) if isinstance(part, str)), "")
    variants = field_shape(reading.owner, key).variants if reading.owner else ()
    return [kind for kind in map(kind_of, variants) if kind]


def _shown(reading: Reading) -> str:
    if isinstance(reading.value, str):
        text = repr(reading.value)
    elif reading.plain:
        text = reading.plain
    else:
        text = inline(reading.value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _meant(value: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(value, allowed, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else ""


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
