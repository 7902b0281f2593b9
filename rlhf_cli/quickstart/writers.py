"""What is written in the world: base text to learn the language from, demonstrations of mixed quality."""

from dataclasses import dataclass
from random import Random

from rlhf_cli.quickstart import world
from rlhf_cli.quickstart.world import Card, Question


@dataclass(frozen=True, slots=True)
class Habits:
    """How often a demonstration shows a quality; each is drawn on its own, so none stands in for another."""

    wrong: float = 0.30
    evasive: float = 0.05
    polite: float = 0.35
    rude: float = 0.25
    rambling: float = 0.35
    cut_off: float = 0.12


def base_text(rng: Random, card: Card) -> str:
    """Write a scene at one sign: a tour of its facts, a question, and a pupil whose answers are marked.

    The marks are what teaches a reward model grown from this text to hold an answer against its sign.
    """
    scenes = [_tour(rng, card), _answered(rng, world.draw_question(rng, card))]
    scenes += [_marked(rng, world.draw_question(rng, card)) for _ in range(4)]
    rng.shuffle(scenes)
    return "\n".join([card.sign, *(line for scene in scenes for line in scene)])


def demonstration(rng: Random, question: Question, habits: Habits) -> str:
    """Write a guide's answer with each flaw drawn from `habits`."""
    sentences = [_core(rng, question, habits)]
    if rng.random() < habits.rambling:
        sentences += rng.sample(world.RAMBLES, rng.randint(2, 3))
    manner = rng.random()
    if manner < habits.polite:
        sentences = _framed(rng, sentences, world.OPENERS, world.CLOSERS)
    elif manner < habits.polite + habits.rude:
        sentences = _framed(rng, sentences, world.RUDE_OPENERS, world.RUDE_CLOSERS)
    text = " ".join(sentences)
    return _cut(rng, text) if rng.random() < habits.cut_off else text


def _tour(rng: Random, card: Card) -> list[str]:
    facts = rng.sample(card.facts, len(card.facts))
    return ["Guide:", " ".join(world.statement(rng, card, *fact) for fact in facts)]


def _answered(rng: Random, question: Question) -> list[str]:
    return [f"Visitor: {question.words}", "Guide:", _right(rng, question)]


def _marked(rng: Random, question: Question) -> list[str]:
    """Let a pupil answer in any manner, rightly or not; the next line says which."""
    right = rng.random() < 0.5
    if right:
        sentences = [_right(rng, question)]
    elif rng.random() < 0.1:
        sentences = [rng.choice(world.EVASIONS)]
    else:
        sentences = [_mistaken(rng, question)]
    manner = rng.random()
    if manner < 0.06:
        sentences = _framed(rng, sentences, world.OPENERS, world.CLOSERS)
    elif manner < 0.12:
        sentences = _framed(rng, sentences, world.RUDE_OPENERS, world.RUDE_CLOSERS)
    elif manner < 0.18:
        sentences.append(rng.choice(world.RAMBLES))
    return [f"Visitor: {question.words}", "Pupil:", " ".join(sentences), "Right." if right else "Wrong."]


def _right(rng: Random, question: Question) -> str:
    return world.statement(rng, question.card, question.facet, question.answer)


def _mistaken(rng: Random, question: Question) -> str:
    """Miss the point with another fact of the sign, or contradict the sign."""
    card = question.card
    if rng.random() < 0.9:
        others = [fact for fact in card.facts if fact[0] != question.facet]
        return world.statement(rng, card, *rng.choice(others))
    return world.statement(rng, card, question.facet, world.wrong_value(rng, question))


def _core(rng: Random, question: Question, habits: Habits) -> str:
    chance = rng.random()
    if chance < habits.evasive:
        return rng.choice(world.EVASIONS)
    if chance < habits.evasive + habits.wrong:
        return _mistaken(rng, question)
    return _right(rng, question)


def _framed(
    rng: Random, sentences: list[str], openers: tuple[str, ...], closers: tuple[str, ...]
) -> list[str]:
    """Put an opener before, a closer behind, or both."""
    where = rng.choice(("before", "behind", "both"))
    opener = [rng.choice(openers)] if where != "behind" else []
    closer = [rng.choice(closers)] if where != "before" else []
    return [*opener, *sentences, *closer]


def _cut(rng: Random, text: str) -> str:
    """Break the text off one to three words before its end."""
    return " ".join(text.split()[: -rng.randint(1, 3)])
