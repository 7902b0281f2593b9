"""`${env:NAME}` and `${env:NAME:-default}` in strings; `$${` stands for a literal `${`."""

import os
import re
from typing import Any

from rlhf_cli.config.problems import KeyPath, Problem, Spot, problem
from rlhf_cli.config.yaml_source import UNSTORABLE, AmbiguousScalar, Document, resolve_scalar

_REFERENCE = re.compile(r"\$\$\{|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class InterpolationError(ValueError):
    """A reference that cannot be resolved; the two arguments are the message and the help."""


def escape(text: str) -> str:
    """Write text so that interpolation gives it back unchanged."""
    return text.replace("${", "$${")


def interpolate(text: str) -> str:
    """Replace the references in one string. Raises InterpolationError."""
    return _REFERENCE.sub(_replace, text)


def interpolate_document(document: Document) -> list[Problem]:
    """Replace the references in all strings of a document, in place; return what went wrong.

    An unquoted scalar that is one whole reference is read again as a scalar, so `${env:STEPS}` may be a number.
    """
    problems: list[Problem] = []
    document.data = _walk(document, document.data, (), problems)
    return problems


def _walk(document: Document, data: Any, path: KeyPath, problems: list[Problem]) -> Any:
    if isinstance(data, dict):
        return {key: _walk(document, value, (*path, key), problems) for key, value in data.items()}
    if isinstance(data, list):
        return [_walk(document, value, (*path, index), problems) for index, value in enumerate(data)]
    if not isinstance(data, str) or "${" not in data:
        return data
    try:
        text = interpolate(data)
        match = _REFERENCE.fullmatch(data)
        if match and match["name"] and path in document.plain:
            document.plain[path] = text
            return resolve_scalar(text)
        return text
    except (InterpolationError, AmbiguousScalar) as error:
        message, help = error.args
    problems.append(problem(document.values.get(path, Spot("")), message, key=path, help=help))
    return data


def _replace(match: re.Match[str]) -> str:
    if match[0] == "$${":
        return "${"
    name, default = match["name"], match["default"]
    if name is None:
        message = "only ${env:NAME} and ${env:NAME:-default} can stand here"
        raise InterpolationError(message, "write $${ for a literal ${")
    value = os.environ.get(name)
    if value or (value is not None and default is None):
        if UNSTORABLE.search(value):
            raise InterpolationError(f"the environment variable {name} is not UTF-8", "set it to UTF-8 text")
        return value
    if default is None:
        message = f"the environment variable {name} is not set"
        raise InterpolationError(message, f"set it, or give a default: ${{env:{name}:-...}}")
    return default
