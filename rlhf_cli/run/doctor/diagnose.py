"""The doctor: says in plain sentences what a run's metrics show to be wrong, and which key to change.

Rules are pure functions of the history of metrics. Each looks at the newest window of it, so that one odd row is
no finding, and stays silent until there is enough to judge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhf_cli.run.doctor.history import History, Row
from rlhf_cli.run.doctor.rules import RULES


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the rule that found it, the metric that shows it, a sentence, and the keys to change."""

    rule: str
    metric: str
    message: str
    keys: str

    @property
    def text(self) -> str:
        return f"{self.message} Change {self.keys}."


def diagnose(stage: str, rows: Sequence[Row]) -> list[Finding]:
    """Return what is wrong with a run of `stage` by its metrics so far, in the order of the rules."""
    history = History(rows)
    judged = [(rule, rule.judge(history)) for rule in RULES if rule.stage == stage]
    return [Finding(rule.name, rule.metric, text, rule.keys) for rule, text in judged if text]


class Doctor:
    """Watches a run of `stage` as its metrics come in, and tells each fault once."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._rows: list[Row] = []
        self._told: set[str] = set()

    def look(self, row: Row) -> list[Finding]:
        """Take in the newest metrics; return what is wrong and not told yet."""
        self._rows.append(row)
        new = [finding for finding in diagnose(self._stage, self._rows) if finding.rule not in self._told]
        self._told |= {finding.rule for finding in new}
        return new

    def remember(self, rows: Iterable[Row], told: Iterable[str]) -> None:
        """Go on with the metrics and the rules told by an earlier attempt."""
        self._rows, self._told = list(rows), set(told)
