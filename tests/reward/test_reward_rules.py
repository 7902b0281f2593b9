"""Rule scorers against scores worked by hand."""

import math
from pathlib import Path

import pytest

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.records import Message, last_user_text
from rlhf_cli.reward.rules import FunctionScorer, LengthScorer, RegexScorer

DIALOG = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "What is 2+2?"),
)


def answer(text: str = "", *, num_tokens: int = 1, prompt=DIALOG, **extra: object) -> Episode:
    return Episode(prompt, (5,), (6,) * num_tokens, text, finished=True, extra=extra)


def test_length_is_a_relative_distance():
    scores = LengthScorer(4).score([answer(num_tokens=n) for n in (1, 4, 5, 12)])
    assert scores == [-0.75, 0.0, -0.25, -2.0]


def test_regex_searches_anywhere():
    scores = RegexScorer(r"\b\d+\b").score([answer("It is 4."), answer("four"), answer("a4b")])
    assert scores == [1.0, 0.0, 0.0]


def test_the_prompt_a_function_sees():
    assert last_user_text("plain\ntext") == "plain\ntext"
    assert last_user_text(DIALOG) == "What is 2+2?"
    assert last_user_text((Message("system", "Be kind."),)) == ""


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(
        "def exact(prompt, completion, extra):\n"
        "    return (prompt == 'What is 2+2?') + (completion == extra['answer'])\n"
        "def constant(prompt, completion, extra):\n"
        "    return extra['value']\n"
    )
    return path


def test_a_function_sees_prompt_completion_and_extra(rewards: Path):
    scorer = FunctionScorer(f"{rewards}:exact")
    assert scorer.name == "exact"
    episodes = [answer("4", answer="4"), answer("5", answer="4"), answer("5", prompt="Q", answer="4")]
    assert scorer.score(episodes) == [2.0, 1.0, 0.0]


def test_a_bool_is_a_score(rewards: Path):
    scores = FunctionScorer(f"{rewards}:constant").score([answer(value=True)])
    assert scores == [1.0]
    assert type(scores[0]) is float


@pytest.mark.parametrize("value", [None, "1.0", [1.0], math.nan, math.inf])
def test_anything_but_a_finite_number_is_refused(rewards: Path, value: object):
    with pytest.raises(DataError, match="reward function returned") as caught:
        FunctionScorer(f"{rewards}:constant").score([answer(value=value)])
    assert caught.value.where == f"{rewards}:constant"


def test_a_function_that_is_not_there(rewards: Path):
    with pytest.raises(MissingInputError, match="defines no `polite`"):
        FunctionScorer(f"{rewards}:polite")
