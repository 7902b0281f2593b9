"""One tree from a file, the files it extends, and the `--set` overrides, with the spot of every key and value."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_cli.config.interpolate import (
    InterpolationError,
    escape,
    interpolate,
    interpolate_document,
)
from rlhf_cli.config.problems import ConfigProblems, KeyPath, Problem, Spot, dotted, problem
from rlhf_cli.config.yaml_source import UNSTORABLE, Document, Text, decode, parse
from rlhf_cli.errors import MissingInputError

SET = "--set"
RUN_DIR = "--run-dir"


def compose(path: Path, overrides: Sequence[str], run_dir: str | None) -> tuple[Document, Text]:
    """Read `path` and what it extends, then apply the overrides in order; return the tree and the file's text.

    Mistakes that leave a tree to check are in the document's `problems`. Raises ConfigProblems for the
    others, and MissingInputError when `path` cannot be read.
    """
    source = decode(_read(path), str(path))
    document = _load(source, path, ())
    for override in overrides:
        try:
            _apply(document, override)
        except ConfigProblems as error:
            document.problems.extend(error.problems)
    if run_dir is not None:
        document.problems.extend(_put_run_dir(document, run_dir))
    document.problems.extend(interpolate_document(document))
    return document, source


def _put_run_dir(document: Document, run_dir: str) -> list[Problem]:
    _forget(document, ("run_dir",))
    spot = Spot(RUN_DIR, 0, len(RUN_DIR) + 2, f"{RUN_DIR} {run_dir}")
    document.data["run_dir"] = escape(UNSTORABLE.sub("", run_dir))
    document.keys["run_dir",] = document.values["run_dir",] = spot
    if UNSTORABLE.search(run_dir):
        return [problem(spot, "this text has a character that cannot be stored", key="run_dir")]
    return []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        message, fix = "there is no such file", "check the path; configs/ holds files to start from"
    except IsADirectoryError:
        message, fix = "this is a directory, not a YAML file", "name the file in it"
    except (OSError, ValueError) as error:
        message, fix = f"cannot be read: {error}", "make it readable"
    raise MissingInputError(f"configuration {path}: {message}", where=str(path), fix=fix)


def _load(source: Text, path: Path, chain: tuple[Path, ...]) -> Document:
    """Parse a file and lay it over the files it extends."""
    document = parse(source)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        spot = document.values.get((), Spot(source.name))
        message = "a configuration is a map of `key: value` lines"
        raise ConfigProblems([problem(spot, message, help="start with `run_dir: ...`")])
    merged = Document(data={})
    for base_path, spot in _extends(document):
        _overlay(merged, _load_base(path.parent / base_path, spot, (*chain, path.resolve())))
    _overlay(merged, document)
    merged.values[()] = Spot(source.name)
    return merged


def _load_base(path: Path, spot: Spot, chain: tuple[Path, ...]) -> Document:
    if path.resolve() in chain:
        names = " -> ".join(file.name for file in (*chain[chain.index(path.resolve()) :], path))
        raise ConfigProblems([problem(spot, f"files extend each other in a circle: {names}", key="extends")])
    try:
        content = _read(path)
    except MissingInputError as error:
        raise ConfigProblems([problem(spot, error.message, key="extends", help=str(error.fix))]) from None
    return _load(decode(content, str(path)), path, chain)


def _extends(document: Document) -> list[tuple[str, Spot]]:
    """Take `extends` out of a document; return the files it names."""
    if "extends" not in document.data:
        return []
    value = document.data.pop("extends")
    spot = document.values["extends",]
    names = value if isinstance(value, list) else [value]
    bases = []
    for index, name in enumerate(names):
        here = document.values.get(("extends", index), spot)
        if not isinstance(name, str) or not name:
            message = "takes a file name or a list of file names"
            raise ConfigProblems([problem(here, message, key="extends", help="write `extends: base.yaml`")])
        try:
            bases.append((interpolate(name), here))
        except InterpolationError as error:
            raise ConfigProblems([problem(here, error.args[0], key="extends", help=error.args[1])]) from None
    _forget(document, ("extends",))
    return bases


def _overlay(below: Document, above: Document) -> None:
    """Merge `above` into `below`: maps key by key, anything else is replaced."""
    replaced: list[KeyPath] = []
    below.data = _merge(below.data, above.data, (), replaced)
    for path in replaced:
        _forget(below, path)
    below.keys.update(above.keys)
    below.values.update(above.values)
    below.plain.update(above.plain)
    below.problems.extend(above.problems)


def _merge(below: Any, above: Any, path: KeyPath, replaced: list[KeyPath]) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        replaced.append(path)
        return above
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _merge(below[key], value, (*path, key), replaced) if key in below else value
    return merged


def _forget(document: Document, path: KeyPath) -> None:
    """Drop what is known about a path and everything below it."""
    for known in (document.keys, document.values, document.plain):
        for old in [old for old in known if old[: len(path)] == path]:
            del known[old]


def _apply(document: Document, override: str) -> None:
    """Set one key from the text of a `--set`."""
    name, equals, text = override.partition("=")
    source = Text(SET, text, prefix=f"{SET} {name}=")
    spot = Spot(SET, 0, len(SET) + 2, f"{SET} {override}")
    if not equals or not name or UNSTORABLE.search(override):
        raise ConfigProblems([problem(spot, "not of the form key=value", help="write `--set optim.lr=1e-5`")])
    keys = name.split(".")
    if "" in keys or keys[0] == "extends":
        message = (
            "extends stands in a file, not in --set" if keys[0] == "extends" else "a part of the key is empty"
        )
        raise ConfigProblems([problem(spot, message, key=name)])
    value = parse(source)
    document.problems.extend(value.problems)
    path = _assign(document, keys, value.data, spot)
    _forget(document, path)
    document.keys[path] = spot
    document.values.update({(*path, *rest): at for rest, at in value.values.items()})
    document.keys.update({(*path, *rest): at for rest, at in value.keys.items()})
    document.plain.update({(*path, *rest): at for rest, at in value.plain.items()})
    document.values.setdefault(path, source.spot(0))


def _assign(document: Document, keys: Sequence[str], value: Any, spot: Spot) -> KeyPath:
    """Walk to the key, creating maps on the way, and put the value there; return the path."""
    node = document.data
    path: KeyPath = ()
    for place, key in enumerate(keys):
        part = _part(node, key, path, spot)
        path = (*path, part)
        if place == len(keys) - 1:
            child = value
        else:
            old = _child(node, part)
            child = ([] if keys[place + 1].isdecimal() else {}) if old is None else old
            if old is None:
                _forget(document, path)
                document.keys[path] = document.values[path] = spot
        if isinstance(node, list) and part == len(node):
            node.append(child)
        else:
            node[part] = child
        node = child
    return path


def _child(node: Any, part: str | int) -> Any:
    """Return what stands at a key or index, None when nothing does."""
    if isinstance(part, int):
        return node[part] if part < len(node) else None
    return node.get(part)


def _part(node: Any, key: str, path: KeyPath, spot: Spot) -> str | int:
    """Read one part of a `--set` key against the value it goes into."""
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        message = f"{dotted(path)} is a single value, so there is no `{key}` in it"
        raise ConfigProblems([problem(spot, message, key=path)])
    if not key.isdecimal() or len(key) > 6 or int(key) > len(node):
        message = f"{dotted(path)} is a list of {len(node)}, so `{key}` cannot be set in it"
        raise ConfigProblems([problem(spot, message, key=path, help=f"use an index from 0 to {len(node)}")])
    return int(key)
