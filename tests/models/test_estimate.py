"""The memory that training will take, against what it does take."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_model

from rlhf_cli.config.sections import FromScratch, Loop, Lora, Model
from rlhf_cli.models import estimate
from rlhf_cli.models.load import Vocabulary, count_parameters, make_vocabulary

SCRATCH = FromScratch(hidden_size=48, num_layers=2, num_heads=3, vocab_size=300)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return make_vocabulary(SCRATCH, ["some text to learn from", "and more of it"])


def test_weights_gradients_and_moments_are_counted_exactly(vocabulary: Vocabulary):
    section = Model(from_scratch=SCRATCH)
    total, trainable = count_parameters(section, vocabulary)
    assert total == trainable
    one = estimate.estimate(section, Loop(), vocabulary)
    assert (one.weights, one.gradients, one.moments) == (4 * total, 4 * total, 8 * total)
    four = estimate.estimate(section, Loop(), vocabulary, num_trained=2, num_frozen=2)
    assert (four.weights, four.gradients, four.moments) == (16 * total, 8 * total, 16 * total)


def test_activations_follow_tokens_layers_and_precision(vocabulary: Vocabulary):
    section = Model(from_scratch=SCRATCH)

    def activations(**loop: object) -> int:
        return estimate.estimate(section, Loop(**loop), vocabulary).activations  # type: ignore[arg-type]

    plain = activations(micro_tokens=100, precision="float32")
    vocab = 2 * count_tokens(vocabulary)
    assert plain == 100 * 2 * (48 * 48 * 2 + vocab)
    assert activations(micro_tokens=200, precision="float32") == 2 * plain
    assert activations(micro_tokens=100, precision="bfloat16") == plain // 2
    with_checkpoints = activations(micro_tokens=100, precision="float32", gradient_checkpointing=True)
    assert with_checkpoints == 100 * 2 * (48 * 48 + vocab)


def count_tokens(vocabulary: Vocabulary) -> int:
    return len(vocabulary.tokenizer)


def test_with_adapters_one_base_serves_all(tmp_path: Path):
    vocabulary = save_tiny_model(tmp_path / "model")
    section = Model(path=str(tmp_path / "model"), lora=Lora(rank=2))
    total, trainable = count_parameters(section, vocabulary)
    memory = estimate.estimate(section, Loop(), vocabulary, num_trained=2, num_frozen=3)
    assert memory.weights == 4 * (total - trainable) + 2 * 4 * trainable
    assert memory.gradients == 2 * 4 * trainable


def test_too_little_memory_is_said_with_what_to_change(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
):
    section = Model(from_scratch=SCRATCH)
    assert "warning" not in estimate.memory_in_words(section, Loop(), vocabulary)
    monkeypatch.setattr(estimate, "free_memory", lambda: 1000)
    words = estimate.memory_in_words(section, Loop(), vocabulary)
    assert "more than is free: lower train.micro_tokens" in words
    monkeypatch.setattr(estimate, "free_memory", lambda: None)
    assert "free" not in estimate.memory_in_words(section, Loop(), vocabulary)


def test_free_memory_is_that_of_this_machine():
    free = estimate.free_memory()
    assert free is None or 2**20 < free < 2**50
    assert torch.get_default_device().type == "cpu"
