"""What annotators are given to do: the Work protocol, and comparisons from a desk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from markupsafe import Markup
from starlette.exceptions import HTTPException

from rlhf_cli.preference.agreement import agreement_of
from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.desk import PastVote, Progress
from rlhf_cli.preference.labeler import Choice, Question, Verdict
from rlhf_cli.preference.web.forms import Form
from rlhf_cli.preference.web.overview import Overview, overview_of
from rlhf_cli.preference.web.rendering import markdown, plain
from rlhf_cli.records import Message, Text

MAX_REASON_CHARACTERS = 4000
_LONGEST_SECONDS = 24 * 3600.0

VERDICTS: Mapping[Choice, str] = {
    "first": "A is better",
    "second": "B is better",
    "tie": "Tie",
    "both_bad": "Both are bad",
    "skip": "Skipped",
}
STRENGTHS = {1: "slightly", 2: "clearly", 3: "much"}


@dataclass(frozen=True, slots=True)
class Done:
    """A line of an annotator's history: what was asked, what they said, and why."""

    asked: Markup
    said: str
    why: Markup


class Work(Protocol):
    """Tasks for people. Every method may be called from several threads; `annotator` is a name."""

    template: str
    """The page that shows one task."""
    welcome: str
    """What a person who comes in is told about the task."""

    def task(self, annotator: str) -> Mapping[str, object] | None:
        """Return what `template` shows, the same until it is answered; None when there is nothing to do."""

    def answer(self, annotator: str, form: Form) -> None:
        """Keep an answer: on disk on return, once however often it is sent. Raises RlhfError, HTTPException 422."""

    def undo(self, annotator: str, *, key: str) -> None:
        """Withdraw the newest answer and give that task again; nothing when there is none."""

    def progress(self, annotator: str) -> Progress: ...

    def history(self, annotator: str) -> list[Done]:
        """Return the newest answers in force, newest first."""

    def overview(self) -> Overview:
        """Sum up for the owner."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, twice: read as Markdown, and as it stands."""

    role: str
    rendered: Markup
    raw: Markup

    @classmethod
    def of(cls, role: str, text: str) -> "Turn":
        return cls(role, markdown(text), plain(text))


class VoteDesk(Protocol):
    """What comparisons need of a desk, see preference/desk.py."""

    def next(self, annotator: str) -> Question | None: ...
    def vote(self, annotator: str, presentation_id: int, verdict: Verdict, *, key: str) -> None: ...
    def undo(self, annotator: str, *, key: str) -> Question | None: ...
    def progress(self, annotator: str) -> Progress: ...
    def history(self, annotator: str, limit: int = 20) -> list[PastVote]: ...


class VoteWork:
    """Comparisons: which of two answers is better. `votes` reads the people's votes in force."""

    template = "vote.html"
    welcome = "You will see two answers to the same prompt, and say which one is better."

    def __init__(
        self,
        desk: VoteDesk,
        *,
        tags: Sequence[str],
        votes: Callable[[], Sequence[Vote]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._desk = desk
        self._votes = votes
        self._tags = tuple(tags)
        self._clock = clock

    def task(self, annotator: str) -> Mapping[str, object] | None:
        question = self._desk.next(annotator)
        if question is None:
            return None
        return {
            "id": question.presentation_id,
            "asked_at": int(self._clock()),
            "turns": turns(question.prompt),
            "answers": _answers(question),
            "tags": self._tags,
            "strengths": STRENGTHS,
            "max_reason": MAX_REASON_CHARACTERS,
        }

    def answer(self, annotator: str, form: Form) -> None:
        verdict = read_verdict(form, self._tags, seconds=waited_or_spent(form, self._clock()))
        self._desk.vote(annotator, form.number("id"), verdict, key=form.text("key"))

    def undo(self, annotator: str, *, key: str) -> None:
        self._desk.undo(annotator, key=key)

    def progress(self, annotator: str) -> Progress:
        return self._desk.progress(annotator)

    def history(self, annotator: str) -> list[Done]:
        return [_done(past) for past in self._desk.history(annotator, 50)]

    def overview(self) -> Overview:
        return overview_of(agreement_of(self._votes()))


def turns(prompt: Text) -> list[Turn]:
    """Give a prompt for show, one entry per message."""
    messages = (Message("prompt", prompt),) if isinstance(prompt, str) else prompt
    return [Turn.of(message.role, message.content) for message in messages]


def _answers(question: Question) -> list[tuple[str, Turn, bool]]:
    texts = (question.first, question.second)
    return [
        (label, Turn.of("answer", text), cut)
        for label, text, cut in zip("AB", texts, question.cut, strict=True)
    ]


def waited_or_spent(form: Form, now: float) -> float:
    """Return the seconds the page was looked at, or where no script tells, those since it was made."""
    waited = now - form.number("asked_at")
    spent = form.number("milliseconds") / 1000 if form.text("milliseconds") else waited
    return round(min(max(spent, 0.0), _LONGEST_SECONDS), 3)


def read_verdict(form: Form, tags: Sequence[str], *, seconds: float) -> Verdict:
    """Read a verdict. Raises HTTPException 422 for a choice or strength that is none."""
    winner = next((choice for choice in get_args(Choice) if choice == form.text("winner")), None)
    if winner is None:
        raise HTTPException(422, "choose A, B, tie, both bad or skip")
    strength = form.number("strength") if form.text("strength") else 0
    if strength not in (0, *STRENGTHS):
        raise HTTPException(422, "strength is 1, 2 or 3")
    return Verdict(
        winner,
        reason=form.text("reason")[:MAX_REASON_CHARACTERS],
        seconds=seconds,
        strength=strength if winner in ("first", "second") else 0,
        tags=tuple(tag for tag in tags if tag in form.all("tag")),
    )


def _done(past: PastVote) -> Done:
    verdict = past.verdict
    strength = STRENGTHS.get(verdict.strength)
    said = VERDICTS[verdict.winner]
    if strength:
        said = said.replace(" is ", f" is {strength} ")
    why = "; ".join([*verdict.tags, *filter(None, [verdict.reason])])
    return Done(plain(past.words), said, plain(why))
