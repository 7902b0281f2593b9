"""How models answer when a tool asks them: the keys of `--set` beside its command."""

import difflib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationError

from rlhf_cli.config.base import Count, NonNegative, Section
from rlhf_cli.errors import UsageError

TemplateMode = Literal["auto", "chat", "plain"]


class Manner(Section):
    """The same seed, prompt and sample number give every model the same random numbers."""

    temperature: NonNegative = 1.0
    """0 always takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    seed: int = Field(default=0, ge=0)
    """Decides every random choice."""
    samples: Count = 1
    """Answers to each prompt."""
    batch_size: Count = 32
    """Prompts answered together."""
    template: TemplateMode = "auto"
    """Whether plain text becomes a user's turn; `auto` asks as the model's training rows did."""


def read_manner(settings: Sequence[str], **defaults: object) -> Manner:
    """Read `key=value` settings over defaults of a tool's own. Raises UsageError with what is wrong."""
    given: dict[str, object] = dict(defaults)
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found or key not in Manner.model_fields:
            close = difflib.get_close_matches(key, Manner.model_fields, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(Manner.model_fields)}."
            raise UsageError(f"--set {setting!r} sets nothing", fix=hint)
        given[key] = value
    try:
        return Manner.model_validate_strings({key: str(value) for key, value in given.items()})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        raise UsageError(f"--set {name}={given[name]}: {problem['msg']}", fix="Change the value.") from None
