"""What the owner of a collection sees: one row per person, and sentences below. Nothing about the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf_cli.preference.agreement import Agreement, Person, in_sentences


@dataclass(frozen=True, slots=True)
class Overview:
    """A table with one row per annotator under `titles`, and sentences below it."""

    titles: tuple[str, ...] = ()
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()


def overview_of(agreement: Agreement) -> Overview:
    """Lay out how people vote: choices, position, time, agreement."""
    titles = ("A chosen", "Tie", "Both bad", "Skip", "As others", "Median time")
    rows = {name: _row(person) for name, person in agreement.people.items()}
    return Overview(titles, rows, tuple(in_sentences(agreement)))


def _row(person: Person) -> tuple[str, ...]:
    first = person.chose_first.value
    return (
        "–" if first is None else f"{first:.0%} of {person.num_decided}",
        str(person.ties),
        str(person.both_bad),
        str(person.skipped),
        "–" if person.agrees is None else f"{person.agrees:.0%}",
        f"{person.median_seconds:.0f} s",
    )
