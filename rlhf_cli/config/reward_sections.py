"""The rewards of ppo: what each kind of scorer can be told."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import Count, FunctionName, Name, NonNegative, Positive, Refusal, Section, refuse


class ModelReward(Section):
    """The score of a reward model."""

    kind: Literal["model"]
    """Scores with a reward model."""
    path: Name
    """A reward-model directory or a finished `train-rm` run."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""


class LengthReward(Section):
    """The closeness of an answer's length to a target."""

    kind: Literal["length"]
    """Scores the number of tokens."""
    target: Count
    """The length, in tokens, that scores highest."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""


class RegexReward(Section):
    """Whether a pattern occurs in the answer."""

    kind: Literal["regex"]
    """Scores 1 where the pattern occurs, else 0."""
    pattern: Name
    """A Python regular expression."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_pattern_refusals(self.pattern))
        return self


class FunctionReward(Section):
    """The result of your own Python function."""

    kind: Literal["function"]
    """Scores with a Python function."""
    function: FunctionName
    """`package.module:function` or `file.py:function`, called with (prompt, completion, extra) of each answer."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""


class EnsembleReward(Section):
    """The score that several reward models can be sure of: their mean less their disagreement."""

    kind: Literal["ensemble"]
    """Scores with several reward models."""
    paths: list[Name] = Field(min_length=2)
    """Reward-model directories or finished `train-rm` runs, best trained with different seeds."""
    std_weight: NonNegative = 1.0
    """How many standard deviations of the models' scores are taken off their mean."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""


class AnswerReward(Section):
    """Whether the answer ends in what is known to be right."""

    kind: Literal["answer"]
    """Scores 1 where the result is the one in the prompt's row, else 0."""
    column: Name = "answer"
    """The column of the prompt's row that holds the right result, or a text that ends in it."""
    pattern: Name = r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+"
    """What a result looks like; the last match counts, or its first group. Numbers are equal by value."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_pattern_refusals(self.pattern))
        return self


class HttpReward(Section):
    """The scores of a server: `rlhf serve-reward`, or any program that speaks its contract."""

    kind: Literal["http"]
    """Scores over HTTP."""
    url: str = Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")
    """Address that answers are posted to."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the server's key, sent as a bearer token."""
    batch_size: Count = 64
    """Most answers in one request."""
    timeout_seconds: Positive = 60.0
    """Longest wait for one reply."""
    retries: int = Field(default=5, ge=0)
    """How often a request is sent again."""
    weight: float = 1.0
    """What the score is multiplied by before the rewards are added."""


RewardSource = Annotated[
    ModelReward | EnsembleReward | LengthReward | RegexReward | AnswerReward | FunctionReward | HttpReward,
    Field(discriminator="kind"),
]


def reward_model_paths(sources: Sequence[RewardSource]) -> list[str]:
    """List the reward models that sources score with, each once."""
    paths: list[str] = []
    for source in sources:
        if isinstance(source, ModelReward):
            paths.append(source.path)
        elif isinstance(source, EnsembleReward):
            paths += source.paths
    return list(dict.fromkeys(paths))


def _pattern_refusals(pattern: str) -> list[Refusal]:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return [Refusal("pattern", f"not a regular expression: {error}", "test it with Python's `re`")]
    return []
