"""The report on a small collection, worked out by hand."""

import json

import pytest

from rlhf_cli.preference.agreement import Estimate, agreement_of, in_sentences
from rlhf_cli.preference.ballots import Vote, Winner


def votes_of(name: str, winners: str, first: int = 1, strength: int = 0) -> list[Vote]:
    """Read one letter a pair: 1, 2, t(ie), b(oth bad), s(kip), - for not asked."""
    words: dict[str, Winner] = {"1": "1", "2": "2", "t": "tie", "b": "both_bad", "s": "skip"}
    return [
        Vote(pair, words[letter], name, first=first, strength=strength if letter in "12" else 0)
        for pair, letter in enumerate(winners, 1)
        if letter != "-"
    ]


def test_nobody_and_one_person_agree_with_nobody():
    assert in_sentences(agreement_of([])) == []
    alone = agreement_of(votes_of("ana", "12t"))
    assert alone.num_shared == 0
    assert alone.percent == Estimate(None)
    assert alone.metrics() == {"shared_pairs": 0.0}


def test_agreement_is_on_responses_and_leaves_skips_out():
    votes = votes_of("ana", "1t22") + votes_of("ben", "1bs-", first=2)
    agreement = agreement_of(votes)
    assert agreement.num_shared == 2
    assert agreement.percent.value == 0.5
    (two,) = agreement.twos
    assert (two.one, two.other, two.num_pairs, two.num_alike) == ("ana", "ben", 2, 1)
    assert "ana and ben agree on 1 of 2 pairs (50%)" in "\n".join(in_sentences(agreement))


def test_cohen_and_fleiss_by_hand():
    """Ten pairs, 8 alike; each says 1 five times: p_e 0.5, kappa 0.6 for both coefficients."""
    agreement = agreement_of(votes_of("ana", "1111122222") + votes_of("ben", "1111222221"))
    assert agreement.twos[0].kappa.value == pytest.approx(0.6)
    assert agreement.fleiss.value == pytest.approx(0.6)
    # Krippendorff's alpha: D_o = 0.2, D_e = 10 / 19, so 1 - 0.38.
    assert agreement.nominal.value == pytest.approx(0.62)
    low, high = agreement.nominal.low, agreement.nominal.high
    assert low is not None
    assert high is not None
    assert low < 0.62 < high
    json.dumps(agreement.as_json(), allow_nan=False)


def test_a_near_miss_costs_less_on_the_scale():
    near = agreement_of(votes_of("ana", "111222") + votes_of("ben", "11t222"))
    far = agreement_of(votes_of("ana", "111222") + votes_of("ben", "112222"))
    assert near.percent == far.percent or near.percent.value == far.percent.value
    assert near.ordinal.value is not None
    assert far.ordinal.value is not None
    assert near.ordinal.value > far.ordinal.value


def test_strengths_make_seven_steps():
    strong = votes_of("ana", "1122", strength=3) + votes_of("ben", "1122", strength=1)
    assert agreement_of(strong).nominal.value == 1.0
    ordinal = agreement_of(strong).ordinal.value
    assert ordinal is not None
    assert 0 < ordinal < 1


def test_different_numbers_of_votes_leave_fleiss_undefined():
    votes = votes_of("ana", "121") + votes_of("ben", "122") + votes_of("cleo", "1--")
    agreement = agreement_of(votes)
    assert agreement.fleiss.value is None
    assert "Fleiss' kappa undefined" in "\n".join(in_sentences(agreement))
    assert "fleiss_kappa" not in agreement.metrics()


def test_whoever_votes_by_place_is_named():
    votes = votes_of("ana", "1" * 20, first=1) + votes_of("ben", "12" * 10, first=1)
    people = agreement_of(votes).people
    assert people["ana"].chose_first.value == 1.0
    assert people["ben"].chose_first.value == 0.5
    named = [sentence for sentence in in_sentences(agreement_of(votes)) if "prefers" in sentence]
    assert len(named) == 1
    assert named[0].startswith("ana prefers what stands first (first in 100% of 20 votes")


def test_pairs_of_one_prompt_are_resampled_together():
    votes = votes_of("ana", "1212121212") + votes_of("ben", "1212121221")
    together = agreement_of(votes, prompt_of=lambda pair: 0)
    assert together.percent.value == 0.8
    assert together.percent.low is None
