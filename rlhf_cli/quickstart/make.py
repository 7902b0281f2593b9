"""Writes the example's five files: `python -m rlhf_cli.quickstart.make --out DIR --seed N`."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rlhf_cli.quickstart import world, writers
from rlhf_cli.quickstart.world import Card

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows each file has."""

    base: int = 7000
    demonstrations: int = 3000
    collect_prompts: int = 3600
    ppo_prompts: int = 2048
    eval_prompts: int = 256


def main() -> None:
    """Write the files into the folder given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.make", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample of the world")
    arguments = parser.parse_args()
    write(arguments.out, arguments.seed)


def write(out: Path, seed: int, sizes: Sizes = Sizes()) -> None:
    """Write base, demonstrations, collect_prompts, ppo_prompts and eval_prompts (.jsonl) into `out`.

    No two rows of any files share a card, so that whatever is measured on one file was not seen in another.
    """
    rng = Random(seed)
    cards = _distinct_cards(rng)
    habits = writers.Habits()
    files: dict[str, Iterable[Row]] = {
        "base": ({"text": writers.base_text(rng, next(cards))} for _ in range(sizes.base)),
        "demonstrations": (_demonstration(rng, next(cards), habits) for _ in range(sizes.demonstrations)),
        "collect_prompts": (_prompt(rng, next(cards)) for _ in range(sizes.collect_prompts)),
        "ppo_prompts": (_prompt(rng, next(cards)) for _ in range(sizes.ppo_prompts)),
        "eval_prompts": (_prompt(rng, next(cards)) for _ in range(sizes.eval_prompts)),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _distinct_cards(rng: Random) -> Iterator[Card]:
    seen: set[str] = set()
    while True:
        card = world.draw_card(rng)
        if card.sign not in seen:
            seen.add(card.sign)
            yield card


def _demonstration(rng: Random, card: Card, habits: writers.Habits) -> Row:
    question = world.draw_question(rng, card)
    return {"prompt": question.prompt, "completion": writers.demonstration(rng, question, habits)}


def _prompt(rng: Random, card: Card) -> Row:
    question = world.draw_question(rng, card)
    return {"prompt": question.prompt, "answer": question.answer}


if __name__ == "__main__":
    main()
