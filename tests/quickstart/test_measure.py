"""Sampling and grading on tiny models, against plain transformers."""

import math

import pytest
import torch
from example_requests import REQUESTS, SCALE
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.quickstart import gold
from rlhf_cli.quickstart.measure import Grader, compare, read_requests


@pytest.fixture(scope="module")
def comparison(example):
    return compare(example)


def test_every_model_answers_every_request(comparison):
    assert comparison.requests == [prompt for prompt, _ in REQUESTS]
    for answers in (comparison.sampled, comparison.greedy):
        assert {name: len(own) for name, own in answers.items()} == {"sft": 6, "dpo": 6, "ppo": 6}
    texts = {name: [answer.text for answer in own] for name, own in comparison.greedy.items()}
    assert texts["sft"] != texts["dpo"] != texts["ppo"]
    assert texts["sft"] != [answer.text for answer in comparison.sampled["sft"]]


def test_the_same_seed_gives_the_same_figures(comparison, example):
    assert compare(example).results == comparison.results


def test_figures_come_from_the_runs(comparison):
    results = comparison.results
    assert (results.seed, results.num_requests, results.rm_accuracy) == (3, 6, 0.8125)
    assert results.sampled["sft"].kl == 0.0
    assert abs(results.sampled["dpo"].kl) > 0.1
    assert results.greedy["dpo"].kl is None


def test_gold_grades_with_the_right_answer_of_each_row(comparison):
    for (prompt, right), graded in zip(REQUESTS, comparison.sampled["ppo"], strict=True):
        assert graded.gold == gold.score(prompt, graded.text, right)
        assert dict(graded.parts) == gold.parts(prompt, graded.text, right)


def test_log_ratios_and_rewards_agree_with_plain_transformers(example):
    tokenizer = AutoTokenizer.from_pretrained(example / "sft" / "model")
    endings = [" eats clover.", " Our barn drum", "."]
    pairs = [(tokenizer(prompt)["input_ids"], tokenizer(end)["input_ids"])
             for (prompt, _), end in zip(REQUESTS, endings, strict=False)]  # fmt: skip
    episodes = [
        Episode("", tuple(p), (*c, tokenizer.eos_token_id), "", True, {"answer": "nuts"}) for p, c in pairs
    ]
    sft = load_policy_for_sampling(str(example / "sft"))
    grader = Grader.open(example / "rm", sft)
    ratios = grader.log_ratios(load_policy_for_sampling(str(example / "ppo")), episodes)
    rewards = [answer.reward for answer in grader.grade(episodes, ratios)]
    scorer = AutoModelForSequenceClassification.from_pretrained(example / "rm" / "model")
    for episode, ratio, reward in zip(episodes, ratios, rewards, strict=True):
        own, reference = (plain_logprob(example / name / "model", episode) for name in ("ppo", "sft"))
        assert ratio == pytest.approx(own - reference, abs=1e-4)
        raw = scorer(torch.tensor([episode.prompt_ids + episode.completion_ids])).logits.item()
        assert reward == pytest.approx((raw - SCALE["mean"]) / SCALE["std"], abs=1e-5)


@torch.no_grad()
def plain_logprob(folder, episode):
    ids = episode.prompt_ids + episode.completion_ids
    logprobs = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].log_softmax(-1)
    return math.fsum(
        logprobs[place - 1, ids[place]].item() for place in range(len(episode.prompt_ids), len(ids))
    )


def test_equal_weights_have_equal_logprobs(example):
    sft = load_policy_for_sampling(str(example / "sft"))
    twin = load_policy_for_sampling(str(example / "sft"))
    episodes = [Episode("", (5, 6, 7), (8, 9), "", False), Episode("", (5,), (10, 11, 12), "", False)]
    assert Grader.open(example / "rm", sft).log_ratios(twin, episodes) == [0.0, 0.0]


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="no run in"):
        compare(tmp_path)


def test_requests_without_room_for_an_answer_are_refused(example):
    vocabulary = load_policy_for_sampling(str(example / "sft")).vocabulary
    with pytest.raises(DataError, match="no request has 6 tokens or fewer"):
        read_requests(example / "data" / "eval_prompts.jsonl", vocabulary, 250)
