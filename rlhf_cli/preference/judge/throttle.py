"""How hard to press a server: as many requests at once as it bears, and pauses where it asks for them."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_PAUSE_SECONDS = 60.0


class Throttle:
    """Additive increase, multiplicative decrease of the requests under way (Chiu and Jain 1989).

    `limit` grows by one for about `limit` replies and halves when the server says it is overloaded; requests that
    were under way at that moment halve it no second time. `opens_at` is when the server wants to hear again.
    """

    def __init__(self, concurrency: int, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._most = float(concurrency)
        self._limit = float(concurrency)
        self._cut_at = clock()
        self.opens_at = clock()

    @property
    def limit(self) -> int:
        return int(self._limit)

    def went_well(self) -> None:
        self._limit = min(self._most, self._limit + 1 / self._limit)

    def overloaded(self, started: float, retry_after_seconds: float | None) -> None:
        """Note a refusal of a request that left at `started`, on this clock."""
        now = self._clock()
        if started >= self._cut_at:
            self._limit = max(1.0, self._limit / 2)
            self._cut_at = now
        if retry_after_seconds is not None:
            self.opens_at = max(self.opens_at, now + retry_after_seconds)


def pause_seconds(attempt: int, chance: random.Random, *, first_seconds: float) -> float:
    """Draw the pause after failed attempt 1, 2, ...: from half to all of one that doubles, at most 60 s."""
    longest = min(_LONGEST_PAUSE_SECONDS, first_seconds * 2.0 ** min(attempt - 1, 20))
    return longest * (0.5 + 0.5 * chance.random())


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date; None when absent or unreadable."""
    if header is None:
        return None
    try:
        return max(0.0, float(header)) if float(header) < 1e9 else None
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
