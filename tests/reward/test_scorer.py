"""The weighted sum of scorers, and the scripted one."""

import pytest

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError
from rlhf_cli.reward.scorer import ScriptedScorer, combine


def answer(text: str) -> Episode:
    return Episode("Q", (5,), (6, 7), text, finished=True)


EPISODES = [answer("a"), answer("b"), answer("c")]


def test_scores_are_weighted_and_added():
    first = ScriptedScorer({"a": 1.0, "b": -2.0}, name="model")
    second = ScriptedScorer({"b": 4.0}, default=10.0, name="length")
    totals, by_name = combine([(first, 1.0), (second, 0.5)], EPISODES)
    assert totals == [1.0 + 5.0, -2.0 + 2.0, 0.0 + 5.0]
    assert by_name == {"model": [1.0, -2.0, 0.0], "length": [10.0, 4.0, 10.0]}


def test_scorers_of_one_name_keep_their_own_columns():
    scorers = [(ScriptedScorer({}, default=float(i), name="regex"), 1.0) for i in range(3)]
    totals, by_name = combine(scorers, EPISODES[:1])
    assert totals == [3.0]
    assert by_name == {"regex": [0.0], "regex_2": [1.0], "regex_3": [2.0]}


def test_a_scorer_that_loses_answers_is_refused():
    class Forgetful:
        name = "forgetful"

        def score(self, episodes):
            return [0.0] * (len(episodes) - 1)

    with pytest.raises(DataError, match="forgetful returned 2 scores for 3 answers"):
        combine([(Forgetful(), 1.0)], EPISODES)
