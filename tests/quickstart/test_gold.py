"""The gold score against answers a reader can judge."""

import pytest

from rlhf_cli.quickstart import gold

PROMPT = (
    "Sign: Juno the panda eats clover, sleeps in the barn and plays with a drum.\n"
    "Visitor: What does Juno eat?\nGuide:\n"
)
RAMBLE = "The gift shop sells old postcards. The cafe always opens at noon."


@pytest.mark.parametrize(
    ("completion", "fact", "courtesy", "concise", "form", "score"),
    [
        ("Of course! Our Juno eats clover. Have a lovely day!", 1, 1, 1, 1, 1),
        ("The panda eats clover.", 1, 0.4, 1, 1, 0.82),
        ("Our Juno eats bamboo.", 0, 0.4, 1, 1, 0.42),
        ("Our Pip eats clover.", 0, 0.4, 1, 1, 0.42),
        ("Our Juno sleeps in the barn.", 0, 0.4, 1, 1, 0.42),
        ("Our Juno eats clover. Our Juno sleeps in the barn.", 0.5, 0.4, 1, 1, 0.62),
        ("I am not sure.", 0.25, 0.4, 1, 1, 0.52),
        ("Read the sign. Our Juno eats clover.", 1, 0, 1, 1, 0.7),
        ("Of course! Our Juno eats clover. Stop asking me.", 1, 0, 1, 1, 0.7),
        (f"Gladly! Our Juno eats clover. {RAMBLE}", 1, 1, 13 / 14, 1, 0.85 + 0.15 * 13 / 14),
        ("Our Juno eats clover. Our Juno eats clover.", 1, 0.4, 1, 0.5, 0.745),
        ("Our Juno eats clover. The cafe always", 1, 0.4, 1, 0.25, 0.7075),
        ("Our Juno clover eats.", 1, 0.4, 1, 0, 0.67),
        ("Our Juno eats barn clover.", 0.5, 0.4, 1, 0, 0.47),
        ("", 0.25, 0.4, 1, 0, 0.37),
    ],
)
def test_parts_and_score(
    completion: str, fact: float, courtesy: float, concise: float, form: float, score: float
) -> None:
    expected = {"fact": fact, "courtesy": courtesy, "concise": concise, "form": form}
    assert gold.parts(PROMPT, completion, "clover") == pytest.approx(expected)
    assert gold.score(PROMPT, completion, "clover") == pytest.approx(score)


@pytest.mark.parametrize(("num_words", "expected"), [(16, 1.0), (23, 0.5), (30, 0.0), (44, 0.0)])
def test_long_answers_lose_concise(num_words: int, expected: float) -> None:
    completion = " ".join(["word"] * num_words)
    assert gold.parts(PROMPT, completion, "clover")["concise"] == pytest.approx(expected)


def test_prefer_says_which_is_better_or_neither() -> None:
    extra = {"answer": "clover"}
    good, bad, twin = "Gladly! Our Juno eats clover.", "Not again.", "Of course! The panda eats clover."
    assert gold.prefer(PROMPT, good, bad, extra) == 1.0
    assert gold.prefer(PROMPT, bad, good, extra) == 0.0
    assert gold.prefer(PROMPT, good, twin, extra) == 0.5
