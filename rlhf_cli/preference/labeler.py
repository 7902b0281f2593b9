"""Who judges: the Labeler protocol, what it is asked, what it may answer, and the scripted fake."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from rlhf_cli.preference.store import Winner
from rlhf_cli.records import Text

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which answer is better? `first` and `second` are in the order shown; nothing here tells who wrote them.

    `number` of `total` counts from 1; `cut` says which of the two ran into the length limit; `extra` holds the
    other columns of the prompt's row.
    """

    pair_id: int
    prompt: Text
    first: str
    second: str
    number: int
    total: int
    cut: tuple[bool, bool] = (False, False)
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a question, in the order shown."""

    winner: Choice
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Undo:
    """Withdraw the verdict before this question, and ask that one again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """No verdict, and no more questions in this sitting."""


class Labeler(Protocol):
    """A person, a rule, or a script. `name` goes with every vote into the store."""

    name: str

    def label(self, question: Question) -> Verdict | Undo | Stop: ...


def unblind(choice: Choice, first: int) -> Winner:
    """Return who won, when response `first` (1 or 2) was shown first."""
    match choice:
        case "first":
            return "1" if first == 1 else "2"
        case "second":
            return "2" if first == 1 else "1"
        case _:
            return choice


class ScriptedLabeler:
    """Gives prepared answers, then stops; keeps the questions it was asked."""

    name = "script"

    def __init__(self, answers: Iterable[Verdict | Undo | Stop]) -> None:
        self._answers = iter(answers)
        self.asked: list[Question] = []

    def label(self, question: Question) -> Verdict | Undo | Stop:
        self.asked.append(question)
        return next(self._answers, Stop())
