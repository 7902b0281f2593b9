"""Functions that users write: found by `package.module:function` or `path/file.py:function`.

What their code raises, on import or when called, is theirs: a DataError that names their file and line.
"""

import functools
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType

from rlhf_cli.errors import DataError, MissingInputError, RlhfError


def load_function(spec: str) -> Callable[..., object]:
    """Return the function that `spec` names; a relative file path starts at the working directory.

    Raises MissingInputError when the file, the module or the function is not there, DataError when the file is
    not Python, the name is not a function's, or its code fails, now or when called.
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
    return _blaming_itself(function, spec)


class _UsersCode:
    """Inside this block runs code of the user's; what it raises, even an exit, becomes a DataError."""

    def __init__(self, spec: str) -> None:
        self._spec = spec

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception | SystemExit) or isinstance(error, RlhfError | MemoryError):
            return
        if isinstance(error, SyntaxError):
            message = f"{error.filename} is not Python: {error}"
            raise DataError(message, where=self._spec, fix="Correct the file.") from error
        place = traceback.extract_tb(trace)[-1]
        raise DataError(
            f"{self._spec} raised {type(error).__name__}: {error}",
            where=f"{place.filename}:{place.lineno}",
            fix=f"Correct the function; the line is: {place.line}",
        ) from error


def _blaming_itself(function: Callable[..., object], spec: str) -> Callable[..., object]:
    @functools.wraps(function)
    def call(*arguments: object) -> object:
        with _UsersCode(spec):
            return function(*arguments)

    return call


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
    with _UsersCode(spec):
        found.loader.exec_module(module)
    return module


def _import(name: str, spec: str) -> ModuleType:
    with _UsersCode(spec):
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
