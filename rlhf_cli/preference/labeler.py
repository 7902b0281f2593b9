"""Who judges: the Labeler protocol, what it is asked, what it may answer, and the scripted fake."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from rlhf_cli.preference.ballots import Vote, Winner
from rlhf_cli.preference.store import Pair
from rlhf_cli.records import Text

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which answer is better? `first` and `second` are in the order shown; nothing here tells who wrote them.

    `number` of `total` counts from 1; `cut` says which of the two ran into the length limit; `extra` holds the
    other columns of the prompt's row. `presentation_id` is 0 where the question is not stored before its answer.
    """

    pair_id: int
    prompt: Text
    first: str
    second: str
    number: int
    total: int
    cut: tuple[bool, bool] = (False, False)
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    presentation_id: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a question, in the order shown.

    `strength` of a decided verdict is 1 (slightly better) to 3 (much better), 0 when not said.
    """

    winner: Choice
    reason: str = ""
    seconds: float = 0.0
    strength: int = 0
    tags: tuple[str, ...] = ()


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


def question_of(pair: Pair, first: int, number: int, total: int, *, presentation_id: int = 0) -> Question:
    """Ask about `pair` with response `first` (1 or 2) shown first."""
    one, two = pair.shown(first)
    cut = (one.finish_reason == "length", two.finish_reason == "length")
    return Question(
        pair.id,
        pair.prompt,
        one.text,
        two.text,
        number,
        total,
        cut,
        pair.extra,
        presentation_id=presentation_id,
    )


def vote_on(pair_id: int, verdict: Verdict, labeler: str, first: int) -> Vote:
    """Return what `verdict` says of a pair, when response `first` (1 or 2) was shown first."""
    winner = unblind(verdict.winner, first)
    strength = verdict.strength if winner in ("1", "2") else 0
    return Vote(
        pair_id, winner, labeler, verdict.reason, verdict.seconds, strength, verdict.tags, first=first
    )


def unblind(choice: Choice, first: int) -> Winner:
    """Return who won, when response `first` (1 or 2) was shown first."""
    match choice:
        case "first":
            return "1" if first == 1 else "2"
        case "second":
            return "2" if first == 1 else "1"
        case _:
            return choice


def blind(winner: Winner, first: int) -> Choice:
    """Invert `unblind`. A vote of "error", which people do not cast, is shown as a skip."""
    match winner:
        case "1" | "2":
            return "first" if winner == str(first) else "second"
        case "error":
            return "skip"
        case _:
            return winner


class ScriptedLabeler:
    """Gives prepared answers, then stops; keeps the questions it was asked."""

    name = "script"

    def __init__(self, answers: Iterable[Verdict | Undo | Stop]) -> None:
        self._answers = iter(answers)
        self.asked: list[Question] = []

    def label(self, question: Question) -> Verdict | Undo | Stop:
        self.asked.append(question)
        return next(self._answers, Stop())
