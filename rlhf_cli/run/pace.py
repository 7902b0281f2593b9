"""What a view of a running loop shows: the metrics that matter for its stage, their course, tokens per second."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

# The first one is drawn as a sparkline.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "sft": ("loss", "lr", "grad_norm"),
    "train-rm": ("accuracy", "loss", "margin"),
    "dpo": ("margin", "accuracy", "loss", "chosen_logratio"),
    "ppo": ("reward", "kl", "length", "entropy", "eos_rate"),
}
_NUM_METRICS = 4
_NUM_BARS = 20
_BARS = "▁▂▃▄▅▆▇█"


class Recent:
    """The newest metrics of a stage, and the course of its first headline."""

    def __init__(self, stage: str) -> None:
        self._headlines = HEADLINES.get(stage, ())
        self._newest: dict[str, float] = {}
        self._course: deque[float] = deque(maxlen=_NUM_BARS)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Take in a line of metrics."""
        shown = [name for name in self._headlines if name in metrics] or list(metrics)[:_NUM_METRICS]
        self._newest = {name: metrics[name] for name in shown}
        if shown and math.isfinite(metrics[shown[0]]):
            self._course.append(metrics[shown[0]])

    def words(self) -> str:
        return " ".join(f"{name}={value:.4g}" for name, value in self._newest.items())

    def sparkline(self) -> str:
        """Draw the course, lowest to highest; empty for fewer than two values."""
        if len(self._course) < 2:
            return ""
        low, high = min(self._course), max(self._course)
        scale = (len(_BARS) - 1) / (high - low or 1.0)
        return "".join(_BARS[round((value - low) * scale)] for value in self._course)


class Pace:
    """Tokens per second between two lines of metrics, whose `tokens` is the mean of a step."""

    def __init__(self, start: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step, self._time = start, clock()
        self._rate = 0.0

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in a line of metrics."""
        now = self._clock()
        if now > self._time and step > self._step:
            self._rate = metrics.get("tokens", 0.0) * (step - self._step) / (now - self._time)
            self._step, self._time = step, now

    def words(self) -> str:
        return f"tokens_per_second={self._rate:.0f}" if self._rate else ""


def duration(seconds: float) -> str:
    """Write seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
