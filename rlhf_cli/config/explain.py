"""Pydantic's errors as problems a person can act on: one per mistake, with its place and a way out."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlhf_cli.config.base import Section
from rlhf_cli.config.expect import Reading, describe
from rlhf_cli.config.model_tree import locate
from rlhf_cli.config.problems import KeyPath, Problem, Spot, problem
from rlhf_cli.config.stages import STAGES
from rlhf_cli.config.suggest import missing_help, other_stage, unknown_key_help
from rlhf_cli.config.yaml_source import Document


class _Finding(NamedTuple):
    """An error at a path of the data, and the section that path is in."""

    path: KeyPath
    owner: type[Section] | None
    error: ErrorDetails


def explain(stage: str, document: Document, error: ValidationError) -> list[Problem]:
    """Return one problem for each mistake, in no particular order."""
    findings = []
    for details in error.errors(include_url=False):
        path, owner = locate(STAGES[stage], document.data, details["loc"])
        findings.append(_Finding(path, owner, details))
    groups: dict[KeyPath, list[_Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.path, []).append(finding)
    problems: list[Problem] = []
    for path, group in groups.items():
        is_union = any(other != path and other[: len(path)] == path for other in groups)
        if not is_union:
            problems.extend(_problems(stage, document, group))
    return problems


def stage_mismatch(stage: str, document: Document) -> list[Problem]:
    """Return the problem that the configuration is made for another stage, when it is."""
    better = other_stage(stage, document.data)
    if better is None:
        return []
    spot = Spot(document.values[()].file)
    message = f"this looks like a configuration for `rlhf {better}`, not for `rlhf {stage}`"
    return [problem(spot, message, help=f"run `rlhf {better} --config {spot.file}`")]


def _problems(stage: str, document: Document, group: list[_Finding]) -> Iterator[Problem]:
    path, owner, error = group[0]
    if error["type"] == "extra_forbidden":
        spot = document.keys.get(path) or _nearest(document, path)
        help = unknown_key_help(stage, owner or STAGES[stage], path)
        yield problem(spot, "unknown key", key=path, help=help)
    elif error["type"] == "missing" and isinstance(path[-1], str):
        spot = _nearest(document, path)
        help = missing_help(owner or STAGES[stage], path)
        yield problem(spot, "required key is missing", key=path, help=help)
    elif error["type"] == "refused":
        for key, message, help in error["ctx"]["refusals"]:
            full = (*path, *(int(part) if part.isdecimal() else part for part in key.split(".") if part))
            spot = document.values.get(full) or _nearest(document, full)
            yield problem(spot, message, key=full, help=help)
    else:
        reading = Reading(path, owner, _value(document.data, path), document.plain.get(path))
        where, message, help = describe(reading, [finding.error for finding in group])
        spot = document.values.get(where) or _nearest(document, where)
        yield problem(spot, message, key=where, help=help)


def _nearest(document: Document, path: KeyPath) -> Spot:
    """Find the closest place that is written somewhere: the line of the section, or the file."""
    while path:
        path = path[:-1]
        spot = document.keys.get(path) or document.values.get(path)
        if spot:
            return spot
    return Spot("configuration")


def _value(data: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
