"""A reward that can be checked by hand: praise counts up, blame counts down."""

import re
from collections.abc import Mapping

PRAISE = frozenset(
    "absorbing beautiful best brilliant captivating charming clever compelling delightful engaging enjoyable "
    "excellent exciting fascinating fine fresh funny gem gripping heartfelt hilarious honest impressive inspired "
    "lovely masterpiece moving perfect powerful refreshing rewarding smart solid stunning superb sweet tender "
    "terrific thoughtful touching triumph warm witty wonderful".split()
)
BLAME = frozenset(
    "awful bad bland bore boring cliche clumsy contrived dull disappointing empty fails flat forced forgettable "
    "hollow inept lame lazy lifeless mediocre mess messy pointless predictable pretentious ridiculous shallow silly "
    "slow stale stupid tedious terrible thin tired tiresome ugly unfunny uninspired waste weak worst".split()
)


def praise(prompt: str, completion: str, extra: Mapping[str, object]) -> float:
    """Score a review in [-1, 1]: distinct words of praise less words of blame, three either way being enough."""
    words = set(re.findall(r"[a-z]+", completion.lower()))
    return max(-3, min(3, len(words & PRAISE) - len(words & BLAME))) / 3
