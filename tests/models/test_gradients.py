"""Gradients that are added to where they are kept, against those that PyTorch makes and adds."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from tiny_models import MODELS, build
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Lora
from rlhf_cli.models.device import recompute_activations
from rlhf_cli.models.gradients import add_gradients_in_place
from rlhf_cli.models.load import wrap_lora
from rlhf_cli.models.packing import allow_packing
from rlhf_cli.models.scoring import labelled_logprobs

IDS = torch.randint(2, 258, (3, 12), generator=torch.Generator().manual_seed(5))
ATTENTION = (torch.arange(12) < torch.tensor([[12], [7], [9]])).long()
LABELS = ATTENTION.bool() & (torch.arange(12) > 2)


def bf16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def gradients_of_two_batches(
    model: PreTrainedModel, autocast: AbstractContextManager[object] | None = None
) -> dict[str, Tensor]:
    """Accumulate over two micro-batches of other rows and sizes."""
    for rows in (slice(0, 2), slice(2, 3)):
        with autocast or nullcontext():
            logprobs = labelled_logprobs(model, IDS[rows], ATTENTION[rows], LABELS[rows])
        logprobs.sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def learning_in_place(name: str) -> PreTrainedModel:
    model = build(name)
    add_gradients_in_place(model)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gets_the_gradients_it_would_have(name: str) -> None:
    found, expected = gradients_of_two_batches(learning_in_place(name)), gradients_of_two_batches(build(name))
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "tied llama", "qwen2", "neox"])
def test_in_bf16_the_gradients_differ_by_rounding(name: str) -> None:
    """The sum stays fp32; what is added to it was rounded to bf16 before as well."""
    found = gradients_of_two_batches(learning_in_place(name), bf16())
    expected = gradients_of_two_batches(build(name), bf16())
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    for key, gradient in expected.items():
        assert float((found[key] - gradient).norm() / gradient.norm()) < 0.01, key


def test_packed_rows_and_activations_that_are_computed_twice() -> None:
    model = learning_in_place("llama")
    assert allow_packing(model) is None
    recompute_activations(model.train())
    found, expected = gradients_of_two_batches(model), gradients_of_two_batches(build())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_frozen_weights_get_none_and_pass_gradients_on() -> None:
    found, expected = (wrap_lora(build(), Lora(rank=4), task="CAUSAL_LM").eval() for _ in range(2))
    found.load_state_dict(expected.state_dict())
    add_gradients_in_place(found)
    ours, plain = gradients_of_two_batches(found), gradients_of_two_batches(expected)
    assert ours.keys() == plain.keys()
    assert all("lora" in name for name in ours)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_layer_frozen_later_learns_nothing() -> None:
    layer = nn.Linear(3, 2)
    add_gradients_in_place(layer)
    layer.weight.requires_grad_(False)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.ones(2))


def test_the_row_of_padding_learns_nothing() -> None:
    embedding = nn.Embedding(4, 2, padding_idx=1)
    add_gradients_in_place(embedding)
    embedding(torch.tensor([[0, 1, 3, 3]])).sum().backward()
    assert embedding.weight.grad.tolist() == [[1, 1], [0, 0], [0, 0], [2, 2]]


def test_layers_of_other_kinds_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layers = [Doubled(2, 2), nn.Embedding(4, 2, scale_grad_by_freq=True), nn.Embedding(4, 2, max_norm=1.0)]
    kinds = [type(layer) for layer in layers]
    add_gradients_in_place(nn.ModuleList(layers))
    assert [type(layer) for layer in layers] == kinds


def test_no_gradient_as_large_as_the_weight_is_made_beside_the_sum() -> None:
    """The largest tensor that the second backward pass makes is that of the states."""
    layer = nn.Linear(256, 256, bias=False)
    add_gradients_in_place(layer)
    states = torch.ones(2, 256, requires_grad=True)
    layer(states).sum().backward()
    loss = layer(states).sum()
    with torch.profiler.profile(profile_memory=True) as profile:
        loss.backward()
    made = [event.cpu_memory_usage for event in profile.events()]
    assert 0 < max(made) < layer.weight.nbytes


def test_a_compiled_model_makes_its_gradients_itself() -> None:
    layer = nn.Linear(3, 2, bias=False)
    add_gradients_in_place(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(torch.ones(1, 3)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones(2, 3))


def test_a_weight_is_cast_once_for_a_step_and_anew_after_it() -> None:
    model = learning_in_place("llama")
    layer = next(part for part in model.modules() if isinstance(part, nn.Linear))
    gradients_of_two_batches(model, bf16())
    cast_for_step = vars(layer)["_kept"]
    gradients_of_two_batches(model, bf16())
    assert vars(layer)["_kept"] is cast_for_step
    with torch.no_grad():
        layer.weight.mul_(2.0)
    model.zero_grad()
    gradients_of_two_batches(model, bf16())
    assert torch.equal(vars(layer)["_kept"], layer.weight.bfloat16())
    assert vars(layer)["_kept"] is not cast_for_step
