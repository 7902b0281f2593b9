"""The example's world: signs at a small zoo, questions about them, and answers of every quality.

Everything that decides the quality of an answer can be seen in the text: the sign holds the facts.

    Sign: Juno the panda eats clover, sleeps in the barn and plays with a drum.
    Visitor: What does Juno eat?
    Guide:
    Of course! Our Juno eats clover. Have a lovely day!
"""

from dataclasses import dataclass
from random import Random

NAMES = (
    "Arlo Bruno Dora Felix Finn Greta Hugo Ivy Juno Kiki Luna Mabel "
    "Max Milo Nell Olive Otto Pip Rosa Sam Tess Theo Vera Zara"
).split()
ANIMALS = "bear camel fox goat lynx moose otter owl panda parrot penguin seal tapir tiger yak zebra".split()


@dataclass(frozen=True, slots=True)
class Facet:
    """One thing a sign can tell: how it is said, which values it takes, how visitors ask for it."""

    phrase: str
    values: tuple[str, ...]
    questions: tuple[str, ...]


FACETS = (
    Facet(
        "eats {}",
        tuple("apples bamboo carrots clover fish honey nuts seeds".split()),
        ("What does {} eat?", "What should we feed {}?"),
    ),
    Facet(
        "sleeps in the {}",
        tuple("barn basket cave garden hut reeds stable tower".split()),
        ("Where does {} sleep?", "Where can we find {} at night?"),
    ),
    Facet(
        "plays with a {}",
        tuple("ball bell bucket drum hoop mirror rope swing".split()),
        ("What does {} play with?", "What keeps {} busy?"),
    ),
    Facet(
        "comes from {}",
        tuple("Brazil Canada China Egypt India Kenya Norway Peru".split()),
        ("Where does {} come from?", "Which country is {} from?"),
    ),
)
OPENERS = ("Of course!", "Gladly!")
CLOSERS = ("Have a lovely day!",)
RUDE_OPENERS = ("Read the sign.", "Not again.", "Make it quick.", "What a silly question.")
RUDE_CLOSERS = ("Now move along.", "Stop asking me.", "Leave me alone.")
EVASIONS = ("I am not sure.", "Nobody told me that.", "Maybe the keeper knows.")
RAMBLES = (
    "The gift shop sells old postcards.",
    "The cafe always opens at noon.",
    "It rained a lot last week.",
    "My cousin once had a boat.",
    "The front gate was painted green.",
    "A large map hangs by the door.",
    "The bus was late this morning.",
    "We used to have two lions.",
)


@dataclass(frozen=True, slots=True)
class Card:
    """One animal and its sign; `facts` are (index into FACETS, value), in the order of the sign."""

    name: str
    animal: str
    facts: tuple[tuple[int, str], ...]

    @property
    def sign(self) -> str:
        first, second, third = (say(facet, value) for facet, value in self.facts)
        return f"Sign: {self.name} the {self.animal} {first}, {second} and {third}."


@dataclass(frozen=True, slots=True)
class Question:
    """A visitor's question about one fact of a card, and the value that answers it."""

    card: Card
    facet: int
    answer: str
    words: str

    @property
    def prompt(self) -> str:
        return f"{self.card.sign}\nVisitor: {self.words}\nGuide:\n"


def say(facet: int, value: str) -> str:
    """Return the predicate of a fact, such as "eats clover"."""
    return FACETS[facet].phrase.format(value)


def draw_card(rng: Random) -> Card:
    """Draw a card with three of the four facets, in any order, each with a random value."""
    facets = rng.sample(range(len(FACETS)), 3)
    facts = tuple((facet, rng.choice(FACETS[facet].values)) for facet in facets)
    return Card(rng.choice(NAMES), rng.choice(ANIMALS), facts)


def draw_question(rng: Random, card: Card) -> Question:
    """Draw one question about `card`."""
    facet, answer = rng.choice(card.facts)
    return Question(card, facet, answer, rng.choice(FACETS[facet].questions).format(card.name))


def statement(rng: Random, card: Card, facet: int, value: str) -> str:
    """Return a sentence that gives `value` to one facet of the animal on `card`, rightly or wrongly."""
    subject = rng.choice((f"Our {card.name}", f"The {card.animal}"))
    return f"{subject} {say(facet, value)}."


def wrong_value(rng: Random, question: Question) -> str:
    """Return a value of the asked facet that is not on the sign."""
    return rng.choice([value for value in FACETS[question.facet].values if value != question.answer])
