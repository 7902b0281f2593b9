"""Rewards that can be verified: the result of an answer against the one that is known."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError


class AnswerScorer:
    """1 where the last match of `pattern` in the answer equals the last one in the row's `column`, else 0.

    GSM8K's column `answer` ends in "#### 18", and 18 is the last number in it. A column without any match is the
    right result as it stands.
    """

    name = "answer"

    def __init__(self, column: str, pattern: str) -> None:
        self.column = column
        self.pattern = re.compile(pattern)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return 1.0 or 0.0 for each answer; raise DataError where a prompt's row lacks the column."""
        return [float(self._is_right(episode)) for episode in episodes]

    def _is_right(self, episode: Episode) -> bool:
        known = episode.extra.get(self.column)
        if not isinstance(known, str | int | float):
            raise DataError(
                f"a prompt's row has no text or number in its column {self.column!r}: it has {sorted(episode.extra)}",
                where="reward: kind: answer",
                fix="Set `column` to the one with the right result.",
            )
        found = self._last_match(episode.completion_text)
        right = self._last_match(str(known))
        return found is not None and plain_result(found) == plain_result(
            str(known) if right is None else right
        )

    def _last_match(self, text: str) -> str | None:
        matches = list(self.pattern.finditer(text))
        if not matches:
            return None
        return matches[-1][1] if self.pattern.groups else matches[-1][0]


def plain_result(text: str) -> Decimal | str:
    """Read a result: a number by its value ("1,200.0" is 1200), other text without case and outer or double spaces."""
    try:
        value = Decimal(text.replace(",", "").strip())
    except InvalidOperation:
        return " ".join(text.split()).casefold()
    return value if value.is_finite() else text
