"""Scores without a model: length, a pattern, or a function of the user's own.

The function's contract is `f(prompt: str, completion: str, extra: Mapping[str, object]) -> float`. `prompt` is the
text, or the last user message of a dialog; `completion` is the answer without its EOS; `extra` holds the other
columns of the prompt's row. A higher return value is better; it is a finite number (a bool counts as 0 or 1).
For example, `reward: [{kind: function, function: "rewards.py:polite"}]` with rewards.py

    def polite(prompt, completion, extra):
        return float("please" in completion)
"""

import math
import re
from collections.abc import Sequence

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError
from rlhf_cli.records import last_user_text
from rlhf_cli.run.plugins import load_function


class LengthScorer:
    """Minus the relative distance of the answer's length from `target` tokens, the closing EOS included."""

    name = "length"

    def __init__(self, target: int) -> None:
        self.target = target

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return -|tokens - target| / target of each answer."""
        return [-abs(len(episode.completion_ids) - self.target) / self.target for episode in episodes]


class RegexScorer:
    """1 where `pattern` occurs anywhere in the answer, else 0."""

    name = "regex"

    def __init__(self, pattern: str) -> None:
        self.pattern = re.compile(pattern)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return 1.0 or 0.0 for each answer."""
        return [float(self.pattern.search(episode.completion_text) is not None) for episode in episodes]


class FunctionScorer:
    """What the function named by `spec` returns; raises what `load_function` raises."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.name = spec.rpartition(":")[2]
        self.function = load_function(spec)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Call the function for each answer; raise DataError when it returns anything but a finite number."""
        return [self._score(episode) for episode in episodes]

    def _score(self, episode: Episode) -> float:
        prompt = last_user_text(episode.prompt)
        value = self.function(prompt, episode.completion_text, episode.extra)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        raise DataError(
            f"the reward function returned {value!r} for the prompt {prompt[:60]!r}",
            where=self.spec,
            fix="Return a finite float.",
        )
