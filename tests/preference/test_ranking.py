"""Pairs chosen by scores: the ends of a ranking, a margin, and nothing compared that cannot be."""

import json
import math
from pathlib import Path

import pytest

from rlhf_cli.preference.ranking import (
    Answer,
    answers,
    choose_pairs,
    keep_scores,
    scores_of,
    vote_of,
    votes_by_score,
)
from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Prompt


def answer(id: int, score: float | None, text: str = "", *, prompt: int = 1, finished: bool = True) -> Answer:
    return Answer(id, prompt, text or f"text {id}", finished, score)


FOUR = [answer(1, 0.5), answer(2, 2.0), answer(3, -1.0), answer(4, 1.0)]


def test_the_best_meets_the_worst():
    choice = choose_pairs(FOUR, "best_worst", min_margin=0.0, seed=0)
    assert choice.pairs == [(1, 2, 3, False)]
    assert choice.margins == [3.0]
    assert choice.left_out == {}


def test_the_best_meets_any_other_one_by_the_prompts_coin():
    prompts = [answer(4 * prompt + it.id, it.score, prompt=prompt) for prompt in range(300) for it in FOUR]
    pairs = choose_pairs(prompts, "best_random", min_margin=0.0, seed=0).pairs
    rivals = [one + two - 4 * prompt - (4 * prompt + 2) for prompt, one, two, _ in pairs]
    assert {rivals.count(rival) > 70 for rival in (1, 3, 4)} == {True}
    assert pairs == choose_pairs(prompts, "best_random", min_margin=0.0, seed=0).pairs


def test_each_meets_each_where_the_margin_allows():
    choice = choose_pairs(FOUR, "all", min_margin=1.0, seed=0)
    # 2.0, 1.0, 0.5, -1.0: all but 1.0 over 0.5
    assert [pair[1:3] for pair in choice.pairs] == [(2, 4), (1, 2), (2, 3), (3, 4), (1, 3)]


def test_the_margin_itself_is_enough_and_less_is_a_prompt_without_pair():
    assert len(choose_pairs(FOUR, "best_worst", min_margin=3.0, seed=0).pairs) == 1
    choice = choose_pairs(FOUR, "best_worst", min_margin=3.001, seed=0)
    assert (choice.pairs, choice.left_out) == ([], {"prompts_without_pair": 1})


def test_equal_scores_are_no_preference():
    assert choose_pairs([answer(1, 1.0), answer(2, 1.0)], "all", min_margin=0.0, seed=0).pairs == []


def test_what_cannot_be_compared_is_counted_by_the_reason():
    found = [
        answer(1, 9.0, "same  words"),
        answer(2, 9.0, "same words"),
        answer(3, None, " \n"),
        answer(4, None, finished=False),
        answer(5, None),
        answer(6, -9.0),
    ]
    choice = choose_pairs(found, "best_worst", min_margin=0.0, seed=0)
    assert choice.pairs == [(1, 1, 6, False)]
    assert choice.left_out == {
        "repeated_answers": 1,
        "empty_answers": 1,
        "cut_answers": 1,
        "long_answers": 1,
    }


@pytest.mark.parametrize(
    ("scores", "winner", "p_first"),
    [
        ((1.0, 0.0), "1", 0.731059),
        ((0.0, 1.0), "2", 0.268941),
        ((2.0, 2.0), "tie", 0.5),
        ((-900.0, 900.0), "2", 0.0),
    ],
)
def test_a_vote_is_the_sigmoid_of_the_difference(scores: tuple[float, float], winner: str, p_first: float):
    vote = vote_of(1, scores, "rm")
    assert (vote.winner, vote.first) == (winner, 0)
    assert vote.p_first_response == pytest.approx(p_first, abs=1e-6)
    assert json.loads(vote.raw) == {"scores": list(scores)}


def test_scores_and_votes_are_stored_once(tmp_path: Path):
    with Store(tmp_path / "collect.db") as store:
        store.add_prompts([Prompt("Say hello", "p:1", {})])
        store.add_responses(
            Response(1, 0, i, "model", "digest", 1.0, 1.0, i, "stop", text, 9)
            for i, text in enumerate(["hello", "go", "well"])
        )
        store.add_labeler("rm", "reward", {"digest": "d"})
        ids = [it.id for it in answers(store, "rm")]
        assert all(it.score is None for it in answers(store, "rm"))
        keep_scores(store, "rm", zip(ids, [0.5, -0.5, 1.5], strict=True))
        choice = choose_pairs(answers(store, "rm"), "best_worst", min_margin=0.0, seed=0)
        store.add_pairs(choice.pairs)
        assert list(votes_by_score(store, "rm")) == [1]
        assert list(votes_by_score(store, "rm")) == []
        (vote,) = store.votes()
        assert (vote.winner, vote.labeler) == ("2", "rm")
        assert vote.p_first_response == pytest.approx(1 / (1 + math.exp(2.0)))
        assert scores_of(store) == {1: (-0.5, 1.5)}
