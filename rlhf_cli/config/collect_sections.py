"""The sections of `rlhf collect`: who answers, who judges, what is exported."""

from typing import Annotated, Literal

from pydantic import Field

from rlhf_cli.config.base import Count, Fraction, FunctionName, Name, NonNegative, Section


class Candidate(Section):
    """A model that answers the prompts."""

    path: Name
    """A model directory, a finished run directory, or a Hugging Face model name."""
    revision: Name | None = None
    """Branch, tag or commit of a Hugging Face model."""
    temperature: NonNegative = 1.0
    """Sampling temperature; 0 always takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""


class Generation(Section):
    """How the candidates answer."""

    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    batch_size: Count = 64
    """Prompts answered together."""


class TerminalLabeler(Section):
    """You, in the terminal."""

    kind: Literal["terminal"]
    """Asks in the terminal which answer is better."""
    annotator: Name | None = None
    """Name stored with each vote; null is the login name."""


class RuleLabeler(Section):
    """A Python function that judges."""

    kind: Literal["rule"]
    """Asks a Python function which answer is better."""
    function: FunctionName
    """`package.module:function` or `file.py:function`; it compares two answers to a prompt."""
    noise: Fraction = 0.0
    """Probability of flipping a decided vote."""


Labeler = Annotated[TerminalLabeler | RuleLabeler, Field(discriminator="kind")]


class Export(Section):
    """How votes become training rows."""

    ties: Literal["drop", "half"] = "drop"
    """Leave ties out, or write them with a preference of one half."""
