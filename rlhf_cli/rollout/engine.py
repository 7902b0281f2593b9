"""What a sampling engine is: token ids in, sampled token ids and their log-probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; temperature 0 takes the likeliest token each time, top_p 1 keeps every token."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """The sampled tokens of one prompt.

    `token_ids` ends with the stop token when the model closed its answer (`finished`); nothing is ever
    appended to one that ran out of room. `logprobs` (nats, one per token) are those of the whole
    distribution at the sampling temperature, before top_p cuts it; at temperature 0, those at temperature 1.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


class Engine(Protocol):
    """Samples one completion per prompt."""

    def refresh(self, iteration: int) -> None:
        """Make sure that what is sampled next comes from the policy as it is now, after `iteration` iterations."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion per prompt, in order.

        A completion depends on its own prompt and seed alone, not on what else is in `prompts`.
        """
        ...


class ScriptedEngine:
    """An engine without a model: the seed picks one of the given completions.

    `requests` keeps every prompt it was asked for, in order.
    """

    def __init__(self, completions: Sequence[Completion]) -> None:
        self.completions = tuple(completions)
        self.requests: list[tuple[int, ...]] = []

    def refresh(self, iteration: int) -> None:
        """Do nothing: there is no policy."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return `completions[seed % len(completions)]` for each prompt, whatever the sampling."""
        self.requests.extend(tuple(prompt) for prompt in prompts)
        return [
            self.completions[seed % len(self.completions)] for _, seed in zip(prompts, seeds, strict=True)
        ]
