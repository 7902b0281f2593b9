"""Functions that users write: found by `package.module:function` or `path/file.py:function`."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from rlhf_cli.errors import DataError, MissingInputError


def load_function(spec: str) -> Callable[..., object]:
    """Return the function that `spec` names; a relative file path starts at the working directory.

    Raises MissingInputError when the file, the module or the function is not there, DataError when the file is
    not Python or the name is not a function's. An error the user's code raises on import passes through.
    """
    source, _, name = spec.rpartition(":")
    module = _load_file(Path(source), spec) if source.endswith(".py") else _import(source, spec)
    if name not in vars(module):
        raise MissingInputError(
            f"{source} defines no `{name}`",
            where=spec,
            fix=f"Define it: def {name}(...), or correct the name.",
        )
    function = vars(module)[name]
    if not callable(function):
        raise DataError(
            f"`{name}` in {source} is a {type(function).__name__}, not a function",
            where=spec,
            fix="Name a function.",
        )
    return function  # type: ignore[no-any-return]


def _load_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise MissingInputError(
            f"{path} is not there", where=spec, fix="Give the path as seen from the working directory."
        )
    # The whole path is the module's name: two files called rewards.py are two modules.
    name = str(path.resolve())
    found = spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise DataError(f"{path} is not a Python file", where=spec)
    module = module_from_spec(found)
    # Known by name while it runs: dataclasses look their module up there.
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except SyntaxError as error:
        raise DataError(f"{path} is not Python: {error}", where=spec, fix="Correct the file.") from error
    return module


def _import(name: str, spec: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Only when the module itself, or a package it is in, is what was not found.
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise MissingInputError(
                f"there is no module {name}",
                where=spec,
                fix="Install it, or name a file: path/to/file.py:function.",
            ) from error
        raise
