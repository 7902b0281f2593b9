"""Votes without a person: any function of the texts, with noise if wished, and two rules to start with."""

from collections.abc import Callable, Mapping

from rlhf_cli.errors import DataError
from rlhf_cli.preference.labeler import Choice, Question, Verdict
from rlhf_cli.records import last_user_text
from rlhf_cli.run.chance import fraction

Rule = Callable[[str, str, str, Mapping[str, object]], float]
"""f(prompt, first, second, extra) -> P(first is better), in [0, 1]; 0.5 is a tie.

`prompt` is the text, or the last user message of a conversation; `extra` holds the other columns of its row.
"""


class RuleLabeler:
    """Votes for the likelier side; a decided vote is flipped with probability `noise`, by the pair's own coin."""

    def __init__(self, rule: Rule, *, name: str, noise: float = 0.0, seed: int = 0) -> None:
        self.name = name
        self._rule = rule
        self._noise = noise
        self._seed = seed

    @property
    def detail(self) -> dict[str, object]:
        """Return what decides the votes besides the function."""
        return {"noise": self._noise, "seed": self._seed}

    def label(self, question: Question) -> Verdict:
        """Return the rule's vote. Raises DataError when it answers with anything but a probability."""
        p_first = self._rule(last_user_text(question.prompt), question.first, question.second, question.extra)
        if not isinstance(p_first, int | float) or not 0 <= p_first <= 1:  # NaN too
            raise DataError(
                f"the rule {self.name} returned {p_first!r} for pair {question.pair_id}",
                fix="return P(first is better), a number from 0 to 1",
            )
        if p_first == 0.5:
            return Verdict("tie")
        flipped = fraction(self._seed, "noise", question.pair_id) < self._noise
        winner: Choice = "first" if (p_first > 0.5) != flipped else "second"
        return Verdict(winner)


def longer(prompt: str, first: str, second: str, extra: Mapping[str, object]) -> float:
    """Prefer the answer with more characters."""
    return 0.5 if len(first) == len(second) else float(len(first) > len(second))


def shorter(prompt: str, first: str, second: str, extra: Mapping[str, object]) -> float:
    """Prefer the answer with fewer characters."""
    return 1 - longer(prompt, first, second, extra)
