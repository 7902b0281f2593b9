"""Prompt templates of judges: YAML files with `{name}` slots, filled in one pass and never evaluated."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from rlhf_cli.config.base import Count, Name, Section
from rlhf_cli.errors import ConfigError, MissingInputError

SHIPPED = Path(__file__).with_name("templates")
SLOTS = ("rubric", "principles", "conversation", "first", "second", "tag")
_NEEDED = ("conversation", "first", "second")
_SLOT = re.compile(r"\{([a-z_]+)\}")

VERDICT_OPEN, VERDICT_CLOSE = "<verdict>", "</verdict>"


class Template(Section):
    """How a judge is asked. The slots are those of SLOTS; any other `{word}` is refused."""

    description: Name
    """What this way of asking is good for, in one sentence."""
    explains: bool
    """Whether the judge writes its reasons first and a verdict in tags last; else the label alone."""
    labels: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]], Field(min_length=2, max_length=3)
    ]
    """What the judge writes when the first answer is better, when the second is, and for a tie if it may."""
    max_tokens: Count
    """Longest reply, in tokens."""
    rubric: str = ""
    """What makes an answer better, unless the configuration says it."""
    system: str = ""
    """The system message; none when empty."""
    user: str
    """The user message, with the slots {conversation}, {first} and {second}."""

    @property
    def label_prefix(self) -> str:
        """Give the text right before the label in a reply."""
        return VERDICT_OPEN if self.explains else ""

    @property
    def digest(self) -> str:
        """Identify all that this template sends and how replies to it are read."""
        return hashlib.sha256(self.model_dump_json(exclude={"description"}).encode()).hexdigest()


def shipped_templates() -> list[str]:
    """Name the templates that come with the program."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_template(name: str) -> Template:
    """Load a shipped template by its name, or any other from its YAML file.

    Raises MissingInputError when there is none, ConfigError when its keys or slots are wrong.
    """
    shipped = name in shipped_templates()
    path = SHIPPED / f"{name}.yaml" if shipped else Path(name)
    if not path.is_file():
        raise MissingInputError(
            f"no judge template {name!r}",
            where="template",
            fix=f"use one of {', '.join(shipped_templates())}, or the path of a YAML file",
        )
    try:
        template = Template.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")), strict=True)
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise _refusal(words, path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refusal(" ".join(str(error).split()), path) from None
    _check_slots(template, path)
    return template


def _refusal(words: str, path: Path) -> ConfigError:
    fix = f"write it like {SHIPPED.name}/label.yaml of this package"
    return ConfigError(f"not a judge template: {words}", where=str(path), fix=fix)


def _check_slots(template: Template, path: Path) -> None:
    found = set(_SLOT.findall(template.system) + _SLOT.findall(template.user))
    problems = [f"unknown slot {{{slot}}}" for slot in sorted(found - set(SLOTS))]
    problems += [f"no slot {{{slot}}}" for slot in _NEEDED if slot not in found]
    if len(set(template.labels)) < len(template.labels):
        problems.append("two labels are the same")
    if template.explains and VERDICT_OPEN not in template.system + template.user:
        problems.append(f"explains is true, and nothing asks for {VERDICT_OPEN}")
    if problems:
        known = ", ".join(f"{{{slot}}}" for slot in SLOTS)
        raise ConfigError("; ".join(problems), where=str(path), fix=f"the slots are {known}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{name}` of `values` once; what is put in is never looked at again.

    Unlike str.format this reaches no attributes, and unlike repeated str.replace a value holding `{other}` stays
    as it is. A `{name}` that is not in `values` stays too.
    """
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), text)
