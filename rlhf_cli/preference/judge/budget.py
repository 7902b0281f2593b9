"""What a judge may spend. Asked before each request leaves, so that the limit is met and not merely noticed."""

from dataclasses import dataclass

from rlhf_cli.preference.judge.calls import Spent

_BYTES_PER_TOKEN = 3  # below what tokenizers of large models reach on prose, so estimates are rather high


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may be spent, None for no limit: requests sent, tokens both ways, money."""

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None


class Budget:
    """Counts what is spent and what calls under way may yet spend.

    Every request that leaves counts as a call, repeated ones too. A call under way is held at its estimate until
    its reply says what it used, so tokens and money pass their limit at most by what estimates fall short.
    """

    def __init__(self, limits: Limits, prices: Prices, spent: Spent) -> None:
        self.prices = prices
        self._limits = limits
        self._calls, self._tokens, self._cost = spent.calls, spent.tokens, spent.cost

    def take(self, num_bytes: int, max_tokens: int) -> bool:
        """Book a request of `num_bytes` that may get `max_tokens` back; False, and nothing, where it is too much."""
        tokens, cost = self._estimate(num_bytes, max_tokens)
        wanted = (self._calls + 1, self._tokens + tokens, self._cost + cost)
        limits = (self._limits.calls, self._limits.tokens, self._limits.cost)
        if any(limit is not None and want > limit for want, limit in zip(wanted, limits, strict=True)):
            return False
        self._calls, self._tokens, self._cost = wanted
        return True

    def settle(self, num_bytes: int, max_tokens: int, prompt_tokens: int, completion_tokens: int) -> float:
        """Replace the estimate of `take` by what was used, 0 and 0 for a request that failed; return its cost."""
        tokens, estimate = self._estimate(num_bytes, max_tokens)
        cost = self.prices.cost(prompt_tokens, completion_tokens)
        self._tokens += prompt_tokens + completion_tokens - tokens
        self._cost += cost - estimate
        return cost

    def _estimate(self, num_bytes: int, max_tokens: int) -> tuple[int, float]:
        prompt_tokens = num_bytes // _BYTES_PER_TOKEN + 1
        return prompt_tokens + max_tokens, self.prices.cost(prompt_tokens, max_tokens)

    def __str__(self) -> str:
        limits = {"calls": self._limits.calls, "tokens": self._limits.tokens, "cost": self._limits.cost}
        return ", ".join(f"{name} {limit:g}" for name, limit in limits.items() if limit is not None)
