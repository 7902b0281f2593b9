"""The trained scorer against its model read one row at a time."""

import math
from contextlib import nullcontext

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DivergedError
from rlhf_cli.reward.trained import TrainedScorer

PAD, EOS, VOCAB = 0, 1, 50


def llama() -> PreTrainedModel:
    return LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=PAD, eos_token_id=EOS, num_labels=1, initializer_range=0.5,
        )
    )  # fmt: skip


def gpt2() -> PreTrainedModel:
    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=EOS, eos_token_id=EOS,
            pad_token_id=PAD, num_labels=1, initializer_range=0.5,
        )
    )  # fmt: skip


@pytest.fixture(params=[llama, gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return request.param()


def scorer_of(model: PreTrainedModel, *, micro_tokens: int = 10_000, **changes: float) -> TrainedScorer:
    scale = {"mean": 0.0, "std": 1.0} | changes
    device = torch.device("cpu")
    return TrainedScorer(model, PAD, micro_tokens=micro_tokens, autocast=nullcontext, device=device, **scale)


def random_episodes(count: int) -> list[Episode]:
    generator = torch.Generator().manual_seed(3)
    episodes = []
    for _ in range(count):
        lengths = torch.randint(1, 20, (2,), generator=generator).tolist()
        prompt_ids, completion_ids = (
            tuple(torch.randint(2, VOCAB, (n,), generator=generator).tolist()) for n in lengths
        )
        episodes.append(Episode("", prompt_ids, (*completion_ids, EOS), "", finished=True))
    return episodes


@pytest.mark.parametrize("micro_tokens", [1, 64, 10_000])
def test_rows_score_in_a_batch_as_they_do_alone(model: PreTrainedModel, micro_tokens: int):
    episodes = random_episodes(17)
    model.eval()
    with torch.no_grad():
        alone = [model(torch.tensor([e.prompt_ids + e.completion_ids])).logits.item() for e in episodes]
    scores = scorer_of(model, micro_tokens=micro_tokens).score(episodes)
    assert scores == pytest.approx(alone, abs=1e-5)
    assert torch.tensor(alone).std() > 0.1  # rows that all score the same would prove nothing


def test_scores_are_brought_to_scale(model: PreTrainedModel):
    episodes = random_episodes(5)
    raw = scorer_of(model).score(episodes)
    scaled = scorer_of(model, mean=0.5, std=4.0).score(episodes)
    assert scaled == pytest.approx([(score - 0.5) / 4.0 for score in raw], abs=1e-6)


def test_training_mode_is_left():
    model = llama().train()
    scorer_of(model)
    assert not model.training


def test_no_answers_have_no_scores(model: PreTrainedModel):
    assert scorer_of(model).score([]) == []


def test_a_score_that_is_not_finite_stops_the_run():
    model = llama()
    with torch.no_grad():
        model.score.weight.fill_(math.nan)
    with pytest.raises(DivergedError, match="gave 4 of 4 answers"):
        scorer_of(model).score(random_episodes(4))
