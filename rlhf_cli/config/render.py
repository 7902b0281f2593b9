"""Resolved configurations as text: YAML with origins, and the keys in which two of them differ."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_cli.config.interpolate import escape
from rlhf_cli.config.problems import KeyPath, Spot, dotted, printable
from rlhf_cli.config.yaml_source import AmbiguousScalar, resolve_scalar

_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")
COMMENT_COLUMN = 44


def find_origins(tree: Mapping[str, Any], values: Mapping[KeyPath, Spot]) -> dict[str, str]:
    """Name the origin of each leaf: `file:line`, `--set`, `--run-dir` or `default`."""
    origins = {}
    for path, value in leaves(tree):
        paths = [path, *((*path, index) for index in range(len(value) if isinstance(value, list) else 0))]
        spots = [values[part] for part in paths if part in values]
        chosen = next((spot for spot in spots if not spot.line), spots[0] if spots else None)
        origins[dotted(path)] = _origin(chosen)
    return origins


def leaves(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is neither a map nor a list of maps; empty ones count as values."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif _is_block_list(node):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, index))
    else:
        yield path, node


def render_tree(tree: Mapping[str, Any], origins: Mapping[str, str], head: str) -> str:
    """Write a tree as YAML, each leaf followed by its origin in a comment."""
    lines = [f"# {printable(head)}"]
    for path, value, text in _lines(tree, ()):
        origin = origins.get(dotted(path)) if value else None
        lines.append(f"{text:<{COMMENT_COLUMN}}  # {printable(origin)}" if origin else text)
    return "\n".join(lines) + "\n"


def differing_keys(old_tree: Mapping[str, Any], new_tree: Mapping[str, Any]) -> list[str]:
    """List what changed between two trees, like `optim.lr: 1e-05 -> 3e-05`."""
    return [f"{dotted(path)}: {old} -> {new}" for path, old, new in _differences(old_tree, new_tree, ())]


def inline(value: Any) -> str:
    """Write a value on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return _text(escape(value)) if isinstance(value, str) else json.dumps(value)


def _origin(spot: Spot | None) -> str:
    if spot is None:
        return "default"
    return f"{spot.file}:{spot.line}" if spot.line else spot.file


def _is_block_list(node: Any) -> bool:
    return isinstance(node, list) and any(isinstance(item, dict | list) for item in node)


def _lines(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, bool, str]]:
    """Yield (path, whether the line holds a leaf, line)."""
    indent = "  " * len(path)
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        start = f"{indent}-" if isinstance(key, int) else f"{indent}{_text(key)}:"
        here = (*path, key)
        if isinstance(key, int) and isinstance(value, dict) and value:
            (first, is_leaf, line), *rest = _lines(value, here)
            yield first, is_leaf, f"{start} {line.lstrip()}"
            yield from rest
        elif (isinstance(value, dict) and value) or _is_block_list(value):
            yield here, False, start
            yield from _lines(value, here)
        else:
            yield here, True, f"{start} {inline(value)}"


def _text(text: str) -> str:
    """Write text unquoted where it reads back as the same text, else in double quotes."""
    try:
        if text and set(text) <= _PLAIN and text[0] not in "-." and resolve_scalar(text) == text:
            return text
    except AmbiguousScalar:
        pass
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _differences(old: Any, new: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in old or key not in new:
                absent = "(absent)"
                before, after = (inline(tree[key]) if key in tree else absent for tree in (old, new))
                yield (*path, key), before, after
            else:
                yield from _differences(old[key], new[key], (*path, key))
    elif _is_block_list(old) and _is_block_list(new) and len(old) == len(new):
        for index, (before_item, after_item) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before_item, after_item, (*path, index))
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        yield path, inline(old), inline(new)
