"""The sections of machines that write and judge: chat models here or behind a server, judges, their calibration."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import (
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Refusal,
    Section,
    Smoothing,
    refuse,
)

_URL = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?")


class Prices(Section):
    """What the server charges."""

    prompt: NonNegative = 0.0
    """Price of a million prompt tokens, in any currency."""
    completion: NonNegative = 0.0
    """Price of a million completion tokens."""


class Budget(Section):
    """The most that may be spent, all attempts of a run together; reached, the run stops and can go on later."""

    calls: Count | None = None
    """Requests sent, repeated ones too."""
    tokens: Count | None = None
    """Tokens both ways."""
    cost: Positive | None = None
    """Money, at `prices`."""


class LocalChat(Section):
    """A chat model in this process."""

    kind: Literal["local"]
    """Loads the model here."""
    path: Name
    """A model directory, a finished run directory, or a Hugging Face model name."""
    revision: Name | None = None
    """Branch, tag or commit of a Hugging Face model."""
    batch_size: Count = 16
    """Conversations answered together."""


class ServerChat(Section):
    """A chat model behind any server that speaks the OpenAI chat-completions format."""

    kind: Literal["server"]
    """Sends requests to a server."""
    url: Name
    """Base address, such as http://127.0.0.1:8000/v1."""
    model: Name
    """The model's name on that server."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable that holds the key; the key itself is never written anywhere."""
    concurrency: Count = 8
    """Most requests under way at once; fewer while the server says it is overloaded."""
    timeout_seconds: Positive = 120.0
    """Longest wait for a whole reply."""
    retries: Annotated[int, Field(ge=0)] = 8
    """How often a failed request is sent again, after growing pauses or those the server asks for."""
    patience: Count = 20
    """Stop the run after this many failures in a row without any reply."""
    longest_wait_seconds: Positive = 300.0
    """Stop the run when the server asks for a longer pause than this."""
    prices: Prices = Prices()
    """What the server charges for its tokens."""
    budget: Budget = Budget()
    """The most that may be spent."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = []
        if not _URL.fullmatch(self.url):
            message = "not a plain http address: no spaces, user name, password, query or fragment"
            refusals.append(
                Refusal("url", message, "write http://host:port/v1, and give a key through `api_key_env`")
            )
        if self.budget.cost is not None and not (self.prices.prompt or self.prices.completion):
            message = "has no meaning without prices: everything would cost 0"
            refusals.append(Refusal("budget.cost", message, "set `prices`"))
        refuse(refusals)
        return self


MANNER = frozenset(
    {
        "batch_size",
        "concurrency",
        "timeout_seconds",
        "retries",
        "patience",
        "longest_wait_seconds",
        "prices",
        "budget",
    }
)
"""Keys of a chat model that say how it is asked, and cannot change what it answers."""

Chat = Annotated[LocalChat | ServerChat, Field(discriminator="kind")]


class Judge(Section):
    """How a chat model compares two answers."""

    chat: Chat
    """The model that judges."""
    template: Name = "explain"
    """How it is asked: `label`, `explain`, `principle`, or a YAML file of your own."""
    rubric: str = ""
    """What makes an answer better; empty is the template's own."""
    principles: list[Name] = Field(default=[])
    """Sentences an answer is judged by, beside the rubric."""
    principles_file: Name | None = None
    """Principles of a constitution to add, each as its `compare` says: `starter`, or a YAML file of your own."""
    num_principles: Count | None = None
    """Draw this many of all principles for each pair; null takes all."""
    orders: Literal["both", "random"] = "both"
    """Ask with either answer first and take disagreement for a tie, or ask once in an order drawn by a coin."""
    tie_margin: Smoothing = 0.1
    """A mean probability closer to one half than this is a tie."""
    min_label_mass: Fraction = 0.2
    """Least probability the labels must have together for their ratio to count."""
    clamp: Smoothing = 0.0
    """Keep probabilities this far from 0 and 1; 0.4 gives the range 0.4 to 0.6."""
    attempts: Count = 3
    """How often a judge is asked that gives no readable verdict; then the vote is an error."""
    temperature: NonNegative = 0.0
    """Sampling temperature of the first attempt."""
    retry_errors: bool = False
    """Ask again about pairs that ended in an error; a finished run goes on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_known = self.principles_file is None
        if self.num_principles is not None and is_known and self.num_principles > len(self.principles):
            message = f"more than there are: principles has {len(self.principles)}"
            refuse([Refusal("num_principles", message, "lower it, or write more principles")])
        return self


class Thresholds(Section):
    """When a judge may stand in for people."""

    min_pairs: Count = 50
    """Fewest pairs that people decided; with less, there is no verdict."""
    max_error_rate: Fraction = 0.05
    """Largest share of pairs without a readable verdict."""
    max_flip_rate: Fraction = 0.3
    """Largest share of pairs where the verdict changes with the order of the answers."""
    min_over_longest: Fraction = 0.0
    """It must agree with people more often than "the longer answer wins" by more than this."""
    max_below_people: Fraction = 0.05
    """How much less often than people with each other it may agree with people."""
    max_length_excess: Fraction = 0.1
    """How much more often than people it may prefer the longer answer."""


class JudgeLabeler(Judge):
    """A chat model that judges."""

    kind: Literal["judge"]
    """Asks a chat model which answer is better."""
    name: Name | None = None
    """Name stored with each vote; null is the model's."""
    calibration: Thresholds = Thresholds()
    """What `rlhf calibrate` demands of it; nothing else depends on this."""
