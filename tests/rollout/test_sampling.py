"""Tokens from logits and uniforms, against cumulative probabilities worked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.sampling import draw_uniforms, nucleus, sample_tokens


def test_uniforms_come_from_the_seed_alone():
    assert torch.equal(draw_uniforms(7, 40)[:3], draw_uniforms(7, 3))
    assert not torch.equal(draw_uniforms(7, 3), draw_uniforms(8, 3))


def test_temperature_zero_takes_the_likeliest_and_reports_temperature_one():
    logits = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]).log()
    tokens, logprobs = sample_tokens(logits, torch.rand(2), Sampling(0.0, 0.1, 1, ()))
    assert tokens.tolist() == [1, 0]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.6])


def test_logprobs_are_at_the_temperature_and_before_the_cut():
    logits = torch.tensor([[1.0, 3.0]]).log()  # odds 1 : 3, at temperature 1/2 squared to 1 : 9
    tokens, logprobs = sample_tokens(logits, torch.tensor([0.0]), Sampling(0.5, 0.5, 1, ()))
    assert tokens.tolist() == [1]  # uniform 0 would pick token 0, had top_p not cut it
    assert logprobs.exp().tolist() == pytest.approx([0.9])


def test_inverse_of_the_cumulative_probabilities():
    logits = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).log()
    uniforms = torch.tensor([0.0, 0.2, 0.25, 0.5, 0.74, 0.75, 1 - 2**-24])
    tokens, logprobs = sample_tokens(logits.expand(7, -1), uniforms, Sampling(1.0, 1.0, 1, ()))
    assert tokens.tolist() == [1, 1, 3, 3, 3, 4, 4]
    assert logprobs.exp().tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.5, 0.25, 0.25])


@given(
    st.lists(st.floats(-40, 20, width=32), min_size=1, max_size=40),
    st.sampled_from([0.0, 2**-24, 0.5, 1 - 2**-23, 1 - 2**-24]),
    st.sampled_from([1.0, 0.9, 0.01]),
)
def test_every_uniform_meets_a_possible_token(logits, uniform, top_p):
    row = torch.tensor(
        [[*logits, -torch.inf]]
    )  # nothing behind the last possible token but an impossible one
    tokens, logprobs = sample_tokens(row, torch.tensor([uniform]), Sampling(1.0, top_p, 1, ()))
    assert 0 <= tokens.item() < len(logits)
    assert logprobs.isfinite().all()


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.05, [0, 0, 0.4, 0]),
        (0.39, [0, 0, 0.4, 0]),
        (0.41, [0, 0.3, 0.4, 0]),
        (0.8, [0.2, 0.3, 0.4, 0]),
        (0.95, [0.2, 0.3, 0.4, 0.1]),
        (1.0, [0.2, 0.3, 0.4, 0.1]),
    ],
)
def testnucleus(top_p, kept):
    probabilities = torch.tensor([[0.2, 0.3, 0.4, 0.1]])
    assert nucleus(probabilities, top_p)[0].tolist() == pytest.approx(kept)


def test_of_equal_tokens_the_first_stay_in_thenucleus():
    assert nucleus(torch.full((1, 4), 0.25), 0.5).tolist() == [[0.25, 0.25, 0, 0]]
