"""Load the configuration of one stage: compose, validate, and keep where every value came from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from rlhf_cli.config.base import Section
from rlhf_cli.config.compose import compose
from rlhf_cli.config.explain import explain, stage_mismatch
from rlhf_cli.config.judge_sections import MANNER
from rlhf_cli.config.problems import ConfigProblems, in_order
from rlhf_cli.config.render import differing_keys, find_origins, render_tree
from rlhf_cli.config.stages import STAGES
from rlhf_cli.config.yaml_source import Document
from rlhf_cli.errors import UsageError

__all__ = ["LoadedConfig", "differing_keys", "load_config", "render_resolved"]

C = TypeVar("C", bound=Section)


_NO_MATTER = {"checkpoint": ("keep",), "rollout": ("url", "timeout_seconds")}
"""Keys of sections that cannot change the result: a run may go on with others."""


@dataclass(frozen=True)
class LoadedConfig(Generic[C]):
    """A valid configuration, as an object and as plain data.

    `tree` has every default filled in. `origins` tells for each dotted key whether its value is from
    `base.yaml:5`, `--set`, `--run-dir` or is the default. `digest` is the sha256 of all that can change
    the result: the tree without run_dir, log, checkpoint.keep, where a rollout server is, a judge's retry_errors and
    calibration, and how chat models are reached and paid.
    """

    stage: str
    config: C
    path: Path
    source_text: str
    tree: dict[str, Any]
    origins: Mapping[str, str]
    digest: str

    @property
    def reopens(self) -> bool:
        """Whether a finished run is to go on, because what failed in it is asked again."""
        return any(isinstance(it, dict) and it.get("retry_errors") is True for it in self.tree.values())


def load_config(
    stage: str, path: Path, overrides: Sequence[str] = (), run_dir: str | None = None
) -> LoadedConfig[Any]:
    """Read and validate the configuration of a stage; later overrides win, and `run_dir` over all.

    Raises ConfigError with every mistake, and MissingInputError when `path` cannot be read.
    """
    if stage not in STAGES:
        raise UsageError(f"there is no stage {stage!r}", fix=f"use one of {', '.join(STAGES)}")
    document, source = compose(path, overrides, run_dir)
    config = _validate(stage, document)
    tree = config.model_dump(mode="json")
    origins = find_origins(tree, document.values)
    return LoadedConfig(stage, config, path, source.text, tree, origins, _digest(tree))


def render_resolved(loaded: LoadedConfig[Any]) -> str:
    """Write the whole configuration as YAML with each value's origin behind it; loading it gives the same tree."""
    head = f"rlhf {loaded.stage}, resolved from {loaded.path}"
    return render_tree(loaded.tree, loaded.origins, head)


def _validate(stage: str, document: Document) -> Section:
    """Check the tree against the stage's model. Raises ConfigProblems with all that is wrong in it."""
    try:
        config = STAGES[stage].model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        found = in_order([*document.problems, *explain(stage, document, error)])
        raise ConfigProblems([*stage_mismatch(stage, document), *found]) from None
    if document.problems:
        raise ConfigProblems(in_order(document.problems))
    return config


def _without_manner(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may change between the sittings of a judge: how its model is reached and paid, and the like."""
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if key in ("retry_errors", "calibration"):
            continue
        if isinstance(value, dict):
            manner = MANNER if key == "chat" else ()
            kept[key] = _without_manner({name: it for name, it in value.items() if name not in manner})
        else:
            kept[key] = value
    return kept


def _digest(tree: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in tree.items() if key not in ("run_dir", "log")}
    for section in kept.keys() & _NO_MATTER.keys():
        kept[section] = {key: it for key, it in kept[section].items() if key not in _NO_MATTER[section]}
    kept = _without_manner(kept)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
