"""Answers that share their prompt in one row, against plain rows: log-probs, scores and gradients, model by model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build, saved, stir, vocabulary
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Loop, Lora, Model
from rlhf_cli.data.batches import AnswerBatch, collate_packed, collate_plain
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.models.device import set_up_training
from rlhf_cli.models.heads import load_classifier, scores_at
from rlhf_cli.models.load import wrap_lora
from rlhf_cli.models.packing import allow_packing, can_pack
from rlhf_cli.models.scoring import logprobs_at

PAD = 1
NO_WINDOW = {"mistral": {"sliding_window": None}, "gemma3": {"sliding_window": 64}}
SHARING = ["llama", "tied llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3", "gpt2", "neox"]

# Sizes of prompts, each with those of its answers: as data is, very uneven, and at the edges.
GROUPS = [(9, 5, 4), (1, 2, 30), (0, 3, 6), (20, 1, 1), (4, 7), (6, 1, 2, 9, 3)]


def answers_of(groups: list[tuple[int, ...]], seed: int = 0) -> list[EncodedText]:
    """Make random answers behind random prompts; a first token without a prompt carries no loss."""
    generator = torch.Generator().manual_seed(seed)

    def some(size: int) -> list[int]:
        return torch.randint(2, 258, (size,), generator=generator).tolist()

    rows = []
    for prompt, *answers in groups:
        front = some(prompt)
        for size in answers:
            mask = [False] * max(prompt, 1) + [True] * (prompt + size - max(prompt, 1))
            rows.append(EncodedText(front + some(size), mask, prompt, "f:1"))
    return rows


ANSWERS = answers_of(GROUPS)
LAYOUTS = (collate_packed(ANSWERS), collate_plain(ANSWERS, PAD))


def logprobs(model: PreTrainedModel, batch: AnswerBatch) -> Tensor:
    return logprobs_at(model, batch.inputs, batch.predictor_index, batch.target_ids)


def gradients(model: PreTrainedModel, loss: Tensor) -> Tensor:
    """Collect all gradients of a loss in one vector, scaled so that the longest entry is 1."""
    model.zero_grad()
    loss.backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return flat / flat.abs().max()


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def weigh(values: Tensor) -> Tensor:
    """Add values up with a weight of its own for each, so that no two can be mistaken."""
    return (values * torch.linspace(-1, 1, len(values))).sum()


@pytest.fixture(params=SHARING)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_logprobs_and_gradients_are_those_of_plain_rows(name: str) -> None:
    """The other model is as transformers made it."""
    model, untouched = (build(name, **NO_WINDOW.get(name, {})) for _ in range(2))
    assert allow_packing(model) is None
    assert can_pack(model, longest=64)
    packed, plain = logprobs(model, LAYOUTS[0]), logprobs(untouched, LAYOUTS[1])
    assert float(plain.detach().std()) > 0.1
    assert_close(packed, plain)
    assert_close(gradients(model, weigh(packed)), gradients(untouched, weigh(plain)))
    assert_close(logprobs(model, LAYOUTS[1]), plain)  # plain rows are still understood


def test_scores_and_gradients_are_those_of_plain_rows(name: str, tmp_path: Path) -> None:
    section = Model(path=saved(tmp_path, name, **NO_WINDOW.get(name, {})))
    core, untouched = (load_classifier(section, vocabulary(), new_head_seed=3).core for _ in range(2))
    assert allow_packing(core) is None
    packed = scores_at(core, LAYOUTS[0].inputs, LAYOUTS[0].last_index)
    plain = untouched(**LAYOUTS[1].inputs).logits[:, 0]  # pooled at the last token by transformers itself
    assert float(plain.detach().std()) > 0.1
    assert_close(packed, plain)
    assert_close(scores_at(core, LAYOUTS[1].inputs, LAYOUTS[1].last_index), plain)
    assert_close(gradients(core, weigh(packed)), gradients(untouched, weigh(plain)))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_adapters_learn_the_same(*, checkpointing: bool) -> None:
    model, untouched = with_adapters(), with_adapters()
    core = model.get_base_model()
    assert allow_packing(core) is None
    set_up_training(core, Loop(gradient_checkpointing=checkpointing))
    packed, plain = logprobs(model, LAYOUTS[0]), logprobs(untouched, LAYOUTS[1])
    assert_close(packed, plain)
    assert_close(gradients(model, weigh(packed)), gradients(untouched, weigh(plain)))


def with_adapters() -> PreTrainedModel:
    model = wrap_lora(build(), Lora(rank=4), task="CAUSAL_LM")
    stir(model)
    return model


@pytest.mark.parametrize("make", [build, with_adapters], ids=["full", "lora"])
def test_bfloat16_is_as_near_as_bfloat16_can_be(make: Callable[[], PreTrainedModel]) -> None:
    model, untouched = make(), make()
    exact = logprobs(untouched, LAYOUTS[1])
    exact_gradients = gradients(untouched, weigh(exact))
    allow_packing(model if make is build else model.get_base_model())
    errors = []
    for each, layout in ((model, LAYOUTS[0]), (untouched, LAYOUTS[1])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = logprobs(each, layout)
        found = gradients(each, weigh(values))
        errors.append([(values - exact).detach().abs().mean(), (found - exact_gradients).abs().mean()])
    (packed, packed_gradients), (plain, plain_gradients) = errors
    assert packed < 1.5 * plain < 0.5
    assert packed_gradients < 1.5 * plain_gradients < 0.05


@pytest.fixture(scope="module")
def llama() -> Iterator[PreTrainedModel]:
    model = build("llama")
    allow_packing(model)
    return model


group = st.tuples(st.integers(0, 6), st.lists(st.integers(1, 9), min_size=1, max_size=4))


@settings(deadline=None, max_examples=25)
@given(groups=st.lists(group, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_any_groups_are_read_as_if_each_answer_stood_alone(llama, groups, seed: int) -> None:
    answers = answers_of([(prompt, *sizes) for prompt, sizes in groups], seed)
    packed, plain = collate_packed(answers), collate_plain(answers, PAD)
    assert packed.target_ids.tolist() == plain.target_ids.tolist()
    with torch.no_grad():
        torch.testing.assert_close(logprobs(llama, packed), logprobs(llama, plain), rtol=0, atol=1e-5)
