"""The known truth of the example: scores an answer in [0, 1] from its text, by four named parts."""

import re
from collections.abc import Mapping

from rlhf_cli.quickstart import world

WEIGHTS = {"fact": 0.4, "courtesy": 0.3, "concise": 0.15, "form": 0.15}
ENOUGH_WORDS = 16
MANY_WORDS = 30
TIE = 0.07

_POLITE = frozenset(world.OPENERS + world.CLOSERS)
_RUDE = frozenset(world.RUDE_OPENERS + world.RUDE_CLOSERS)
_FIXED = _POLITE | _RUDE | frozenset(world.EVASIONS + world.RAMBLES)
_VALUES = frozenset(value for facet in world.FACETS for value in facet.values)
_SUBJECTS = frozenset(world.NAMES + world.ANIMALS)
_SUBJECT = rf"(?:Our (?:{'|'.join(world.NAMES)})|The (?:{'|'.join(world.ANIMALS)}))"
_PREDICATE = "|".join(facet.phrase.format(f"(?:{'|'.join(facet.values)})") for facet in world.FACETS)
_STATEMENT = re.compile(rf"{_SUBJECT} (?:{_PREDICATE})\.")


def parts(prompt: str, completion: str, answer: str) -> dict[str, float]:
    """Return the parts of the gold score, each in [0, 1].

    - `fact`: share of the facts given that answer the question; 0 if one contradicts the sign, 0.25 for none.
    - `courtesy`: 1 polite, 0.4 neutral, 0 rude.
    - `concise`: 1 up to 16 words, falling to 0 at 30.
    - `form`: share of whole sentences, less repeats, halved where the text breaks off.
    """
    sentences = _sentences(completion)
    return {
        "fact": _fact(prompt, completion, answer),
        "courtesy": _courtesy(sentences),
        "concise": _concise(completion),
        "form": _form(sentences),
    }


def score(prompt: str, completion: str, answer: str) -> float:
    """Return the weighted sum of the parts, in [0, 1]."""
    return sum(WEIGHTS[name] * value for name, value in parts(prompt, completion, answer).items())


def prefer(prompt: str, first: str, second: str, extra: Mapping[str, object]) -> float:
    """Return 1.0 where `first` has the higher gold score, 0.0 where `second` has, 0.5 for a tie.

    `extra` holds the right `answer`.
    """
    answer = str(extra["answer"])
    difference = score(prompt, first, answer) - score(prompt, second, answer)
    if abs(difference) < TIE:
        return 0.5
    return 1.0 if difference > 0 else 0.0


def _sentences(text: str) -> list[str]:
    return re.findall(r"[^.!?]+[.!?]?", text.strip())


def _fact(prompt: str, completion: str, answer: str) -> float:
    known = set(re.findall(r"\w+", prompt))
    said = set(re.findall(r"\w+", completion))
    claims = said & _VALUES
    if (claims | said & _SUBJECTS) - known:
        return 0.0
    if not claims:
        return 0.25
    return (answer in claims) / len(claims)


def _courtesy(sentences: list[str]) -> float:
    said = {sentence.strip() for sentence in sentences}
    if said & _RUDE:
        return 0.0
    return 1.0 if said & _POLITE else 0.4


def _concise(completion: str) -> float:
    excess = len(completion.split()) - ENOUGH_WORDS
    return min(1.0, max(0.0, 1.0 - excess / (MANY_WORDS - ENOUGH_WORDS)))


def _form(sentences: list[str]) -> float:
    if not sentences:
        return 0.0
    said = [sentence.strip() for sentence in sentences]
    whole = sum(sentence in _FIXED or _STATEMENT.fullmatch(sentence) is not None for sentence in said)
    distinct = len(set(said)) / len(said)
    ended = 1.0 if said[-1][-1] in ".!?" else 0.5
    return whole / len(said) * distinct * ended
