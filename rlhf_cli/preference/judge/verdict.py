"""From replies to a judgement: strict reading of one verdict, then both orders together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_cli.preference.judge.chat import ChatReply
from rlhf_cli.preference.judge.templates import Template

Side = Literal["first", "second", "tie"]
_SIDES: tuple[Side, ...] = ("first", "second", "tie")
_VERDICT = re.compile(r"<verdict>\s*([A-Za-z0-9]+)\s*</verdict>")
_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_REASONING_OPEN = re.compile(r"<(?:think|thinking|reasoning)>")
_REASONING_CLOSE = re.compile(r"</(?:think|thinking|reasoning)>")
_WRAPPING = " \t\r\n.*_`\"'()[]"


@dataclass(frozen=True, slots=True)
class Reading:
    """One verdict in the order shown: `lean` is P(first is better) - 0.5, in [-0.5, 0.5].

    `is_probability` says whether `lean` is the model's own probability or just its word.
    """

    side: Side
    lean: float
    is_probability: bool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a reply is no verdict. Never a preference, never a tie."""

    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one case; responses are "1" and "2" whatever the order shown.

    `p_first_response` is P(response 1 is better), None unless every order gave probabilities. `readings` are
    (which response was shown first, what was read). `seconds` is the time the calls took together.
    """

    winner: Literal["1", "2", "tie", "error"]
    p_first_response: float | None
    reason: str
    seconds: float
    readings: tuple[tuple[int, Reading], ...] = ()

    @property
    def flipped(self) -> bool | None:
        """Whether the order shown decided; None unless both orders were asked and read."""
        sides = {_as_response(first, reading.side) for first, reading in self.readings}
        return len(sides) > 1 if len(self.readings) == 2 else None


def read_reply(reply: ChatReply, template: Template, *, min_label_mass: float) -> Reading | Unreadable:
    """Read a verdict from the label's probabilities where the model tells them, else from the words."""
    told = _from_words(reply, template)
    if reply.label_probabilities is None:
        return told
    # Reasons without a closing verdict have no place where a label's probability would mean anything.
    if template.explains and isinstance(told, Unreadable):
        return told
    return _from_probabilities(reply.label_probabilities, template.labels, min_label_mass)


def _from_probabilities(
    probabilities: Mapping[str, float], labels: Sequence[str], min_label_mass: float
) -> Reading | Unreadable:
    weights = [probabilities.get(label, 0.0) for label in labels]
    mass = sum(weights)
    if not mass >= max(min_label_mass, 1e-12):  # NaN too
        return Unreadable(f"the labels have {mass:.2g} of the probability, less than {min_label_mass:g}")
    # Written so that exchanging the two labels changes the sign and not the last bit.
    lean = (weights[0] - weights[1]) / (2 * mass)
    return Reading(_likeliest(weights), lean, is_probability=True)


def _likeliest(weights: Sequence[float]) -> Side:
    """Name the side with most weight; a tie where neither answer alone has it."""
    best = max(weights)
    return "tie" if weights[0] == weights[1] or best not in weights[:2] else _SIDES[weights.index(best)]


def _from_words(reply: ChatReply, template: Template) -> Reading | Unreadable:
    text = without_reasoning(reply.text)
    if template.explains:
        found = set(_VERDICT.findall(text))
        if len(found) > 1:
            return Unreadable(f"conflicting verdicts: {', '.join(sorted(found))}")
        label = found.pop() if found else ""
    else:
        label = text.strip(_WRAPPING)
    if label not in template.labels:
        return Unreadable(f"no verdict in {_shortened(text)!r}")
    side = _SIDES[template.labels.index(label)]
    return Reading(side, {"first": 0.5, "second": -0.5, "tie": 0.0}[side], is_probability=False)


def without_reasoning(text: str) -> str:
    """Return what follows the model's own reasoning; nothing when that never ends."""
    text = _REASONING.sub("", text)
    # Some chat templates open the block in the prompt, so only its end is in the reply.
    text = _REASONING_CLOSE.split(text)[-1]
    return "" if _REASONING_OPEN.search(text) else text


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 60 else f"{words[:40]} ... {words[-15:]}"


def combine(
    readings: Sequence[tuple[int, Reading]], *, tie_margin: float, clamp: float, seconds: float
) -> Judgement:
    """Join the verdicts of one case; each comes with the response, 1 or 2, that was shown first.

    Orders that disagree are a tie, and so is a mean within `tie_margin` of one half. `clamp` keeps probabilities
    in [clamp, 1 - clamp].
    """
    leans = [reading.lean if first == 1 else -reading.lean for first, reading in readings]
    lean = sum(leans) / len(leans)
    disagree = len({_as_response(first, reading.side) for first, reading in readings}) > 1
    sure = all(reading.is_probability for _, reading in readings)
    lean = max(clamp - 0.5, min(0.5 - clamp, lean))
    p_first = 0.5 + lean if sure else None
    # A tie written by the judge stays one, whatever little the other labels lean.
    told_tie = not disagree and readings[0][1].side == "tie"
    if disagree or told_tie or lean == 0 or abs(lean) < tie_margin:
        reason = "the orders disagree" if disagree else ""
        return Judgement("tie", p_first, reason, seconds, tuple(readings))
    return Judgement("1" if lean > 0 else "2", p_first, "", seconds, tuple(readings))


def _as_response(first: int, side: Side) -> str:
    if side == "tie":
        return "tie"
    return "1" if (side == "first") == (first == 1) else "2"
