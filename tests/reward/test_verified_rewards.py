"""Exact answers in rows like those of GSM8K, and ensembles, against scores worked by hand."""

import math

import pytest

from rlhf_cli.config.sections import AnswerReward
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError
from rlhf_cli.reward.answer import AnswerScorer, plain_result
from rlhf_cli.reward.ensemble import EnsembleScorer
from rlhf_cli.reward.scorer import ScriptedScorer

ROW = "She sold 48 / 2 = <<48/2=24>>24 clips.\nIn all 48 + 24 = 72.\n#### 72"
NUMBER = AnswerReward(kind="answer").pattern


def score(text: str, known: object = ROW, *, pattern: str = NUMBER) -> float:
    episode = Episode("q", (5,), (6,), text, finished=True, extra={"answer": known})
    return AnswerScorer("answer", pattern).score([episode])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48 and 24 make 72.", 1.0),
        ("#### 72", 1.0),
        ("72.0 clips", 1.0),
        ("It is 72, not 24.", 0.0),  # the last number counts
        ("seventy-two", 0.0),
        ("", 0.0),
        ("172", 0.0),
        ("-72", 0.0),
    ],
)
def test_the_last_number_is_the_result(text: str, expected: float):
    assert score(text) == expected


def test_numbers_are_compared_by_value_and_texts_without_case():
    assert score("It costs $1,200.", 1200) == 1.0
    assert score("0.5", "#### .50") == 1.0
    assert score("0.5", "0.50") == 1.0
    assert score("the answer is (b)", "(B)", pattern=r"\([A-Da-d]\)") == 1.0
    assert score("answer: New  York", "new york", pattern=r"answer:\s*(.+)") == 1.0
    assert plain_result("1,200.0") == plain_result("1200")
    assert plain_result("nan") == "nan"


def test_a_row_without_the_column_is_named():
    with pytest.raises(DataError, match="column 'answer': it has \\['other'\\]"):
        AnswerScorer("answer", NUMBER).score(
            [Episode("q", (5,), (6,), "1", finished=True, extra={"other": 1})]
        )


def test_an_ensemble_takes_off_what_its_members_disagree_on():
    # scores 1, 2, 6: mean 3, population std sqrt((4 + 1 + 9) / 3)
    members = [ScriptedScorer({"a": value}, default=0.5) for value in (1.0, 2.0, 6.0)]
    episodes = [Episode("q", (5,), (6,), text, finished=True) for text in ("a", "b")]
    assert EnsembleScorer(members, std_weight=0.5).score(episodes) == pytest.approx(
        [3.0 - 0.5 * math.sqrt(14 / 3), 0.5]
    )
    assert EnsembleScorer(members, std_weight=0.0).score(episodes)[0] == pytest.approx(3.0)
