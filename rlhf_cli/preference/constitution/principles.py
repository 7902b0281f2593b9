"""Principles and the way a model is asked to apply them: two YAML files, checked when they are read."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rlhf_cli.config.base import Name, Positive, Section
from rlhf_cli.errors import ConfigError, MissingInputError
from rlhf_cli.run.chance import fraction

_HERE = Path(__file__).parent
T = TypeVar("T")


class Principle(Section):
    """One thing answers are held to."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Name in the records."""
    critique: Name
    """Asks what is wrong with an answer."""
    revision: Name
    """Asks for a better one."""
    compare: str = ""
    """Words it for a judge who compares two answers."""
    weight: Positive = 1.0
    """How often it is drawn, relative to the others."""


class Asking(Section):
    """How critiques and revisions are asked for; slots in braces are filled once and never evaluated."""

    description: Name
    """What this way of asking is good for, in one sentence."""
    system: str = ""
    """The system message; none when empty."""
    critique: str
    """Asks for a critique: {conversation}, {answer}, {principle} and {tag}, a word that no text contains."""
    revision: str
    """Asks for a revision: the same slots and {critique}."""

    @property
    def digest(self) -> str:
        """Identify what is sent."""
        return hashlib.sha256(self.model_dump_json(exclude={"description"}).encode()).hexdigest()


def load_principles(name: str) -> list[Principle]:
    """Load the shipped principles by name, or others from their YAML file.

    Raises MissingInputError when there is no such file, ConfigError when its rows are wrong.
    """
    principles = _load(name, "principles", TypeAdapter(list[Principle]))
    names = [principle.id for principle in principles]
    if not names or len(set(names)) < len(names):
        message = "two principles have the same id" if names else "no principles"
        raise ConfigError(message, where=name, fix="give a list of {id, critique, revision}, each id once")
    return principles


def load_asking(name: str) -> Asking:
    """Load the shipped way of asking by name, or another from its YAML file. Raises as `load_principles` does."""
    return _load(name, "templates", TypeAdapter(Asking))


def _load(name: str, folder: str, kind: TypeAdapter[T]) -> T:
    shipped = _HERE / folder / f"{name}.yaml"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (_HERE / folder).glob("*.yaml")))
        raise MissingInputError(
            f"no file {name}", where=f"constitution.{folder}", fix=f"use {known}, or the path of a YAML file"
        )
    try:
        return kind.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")), strict=True)
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
    raise ConfigError(
        words, where=str(path), fix=f"write it like {folder}/{_example(folder)} of this package"
    )


def _example(folder: str) -> str:
    return "starter.yaml" if folder == "principles" else "standard.yaml"


def draw_principle(principles: Sequence[Principle], seed: int, prompt_id: int, number: int) -> Principle:
    """Draw the principle of round `number` (from 1) for a prompt: by weight, not twice before all had a turn."""
    remaining: list[Principle] = []
    for turn in range(1, number + 1):
        remaining = remaining or list(principles)
        point = fraction(seed, "principle", prompt_id, turn) * sum(p.weight for p in remaining)
        chosen = remaining[-1]
        for principle in remaining:
            point -= principle.weight
            if point < 0:
                chosen = principle
                break
        remaining.remove(chosen)
    return chosen
