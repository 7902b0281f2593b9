"""The sections of `rlhf collect`: who answers, who judges, what is exported."""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import (
    Count,
    Decay,
    Fraction,
    FunctionName,
    Name,
    NonNegative,
    Refusal,
    Section,
    refuse,
)
from rlhf_cli.config.judge_sections import JudgeLabeler

PersonName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


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
    tags: list[Name] = ["correct", "clear", "complete", "concise", "safe"]
    """Reasons to choose from, ten at most."""


class WebLabeler(Section):
    """People, in a web page."""

    kind: Literal["web"]
    """Asks in a web page which answer is better."""
    host: Name = "127.0.0.1"
    """Address to listen on; 127.0.0.1 is this machine alone, 0.0.0.0 every network it is in."""
    port: int = Field(default=8642, ge=1, le=65535)
    """Port to listen on."""
    annotator: Name | None = None
    """Name stored with your own votes; null is the login name."""
    annotators: list[PersonName] = []
    """Others who may vote; each gets a link that works once."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+/?$")
    """Address of the page for others where it is not host and port: that of a proxy or tunnel."""
    tags: list[Name] = ["correct", "clear", "complete", "concise", "safe"]
    """Reasons to choose from beside a text of one's own."""
    guidelines: str = ""
    """What annotators should go by, in Markdown; shown under Help."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.annotators and not _is_loopback(self.host):
            message = f"empty, while {self.host} can be reached from other machines"
            refuse([Refusal("annotators", message, "name who may vote, or set `host: 127.0.0.1`")])
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RuleLabeler(Section):
    """A Python function that judges."""

    kind: Literal["rule"]
    """Asks a Python function which answer is better."""
    function: FunctionName
    """`package.module:function` or `file.py:function`; it compares two answers to a prompt."""
    noise: Fraction = 0.0
    """Probability of flipping a decided vote."""


class RewardLabeler(Section):
    """A reward model that ranks several answers to each prompt."""

    kind: Literal["reward"]
    """Has a reward model score the answers."""
    path: Name
    """A reward-model directory or a finished `train-rm` run."""
    samples: Count = 4
    """Answers that each candidate gives to each prompt."""
    strategy: Literal["best_worst", "best_random", "all"] = "best_worst"
    """Pair the best answer with the worst, the best with any other one, or each with each."""
    min_margin: NonNegative = 0.0
    """Least difference of the raw scores; pairs closer than this are not made."""


Labeler = Annotated[
    TerminalLabeler | WebLabeler | JudgeLabeler | RewardLabeler | RuleLabeler, Field(discriminator="kind")
]


class Overlap(Section):
    """How many people judge the same pair, so that their agreement can be measured."""

    votes: int = Field(default=2, ge=2)
    """Votes of different people on a pair of the shared ones; every other pair gets one."""
    fraction: Fraction = 0.0
    """Share of the pairs that several people judge."""


ExportFormat = Literal["parquet", "trl", "hh", "argilla", "label_studio"]


class Export(Section):
    """How votes become training rows."""

    ties: Literal["drop", "half", "both-ways", "error"] = "drop"
    """Leave ties out, write them with a preference of one half, write them once in each direction, or stop."""
    labels: Literal["hard", "soft"] = "hard"
    """Whether the majority decides alone, or p_chosen says how sure the judge is, or how many people agree."""
    cut: Literal["keep", "drop"] = "keep"
    """Whether pairs with an answer cut at generation.max_new_tokens are kept."""
    eval_fraction: Decay = 0.0
    """Share of the prompts whose pairs go to preferences.eval.jsonl instead."""
    formats: list[ExportFormat] = ["parquet"]
    """What is written beside preferences.jsonl, in the folder export."""
