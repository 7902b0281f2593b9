"""The last layer without what nobody reads, against the whole of it."""

import pytest
import torch
from tiny_models import GROUPED, build
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from rlhf_cli.algo.packing import pack, predicted_by
from rlhf_cli.config.sections import Lora
from rlhf_cli.models.device import recompute_activations
from rlhf_cli.models.heads import scores_at
from rlhf_cli.models.load import wrap_lora
from rlhf_cli.models.packing import allow_packing
from rlhf_cli.models.scoring import logprobs_at

SIZES = [(30, 5, 7), (40, 3), (25, 1, 1, 2), (40, 2)]
IDS = torch.randint(2, 258, (156,), generator=torch.Generator().manual_seed(5))
PACKS = sorted({"llama", "tied llama", "qwen2", "qwen3", "gemma", "gpt2", "neox"})


def answers() -> tuple[Tensor, Tensor]:
    """Name the positions of answer tokens, and what predicts them: a prompt's last token does so several times."""
    starts, found = 0, []
    for prompt, *rest in SIZES:
        found += range(starts + prompt, starts + prompt + sum(rest))
        starts += prompt + sum(rest)
    own = torch.tensor(found)
    return own, predicted_by(SIZES)[own]


def logprobs(model: PreTrainedModel) -> Tensor:
    own, predictors = answers()
    return logprobs_at(model, pack(IDS, SIZES), predictors, IDS[own])


def rows_of_last_network(model: PreTrainedModel) -> list[int]:
    """Count the positions that each call of the last feed-forward network sees."""
    network = [part for name, part in model.named_modules() if name.endswith(".mlp")][-1]
    counts: list[int] = []

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts.append(inputs[0].shape[:-1].numel())

    inner = next(part for part in network.modules() if not list(part.children()))
    inner.register_forward_pre_hook(count)
    return counts


def packing(name: str = "llama") -> PreTrainedModel:
    model = build(name)
    assert allow_packing(model) is None
    return model


@pytest.mark.parametrize("name", PACKS)
def test_logprobs_and_gradients_are_those_of_the_whole_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, untouched = packing(name), packing(name)
    seen, seen_whole = rows_of_last_network(model), rows_of_last_network(untouched)
    found = logprobs(model)
    with monkeypatch.context() as patch:
        patch.setattr("rlhf_cli.models.unread._last_feed_forward", lambda _: None)
        expected = logprobs(untouched)
    assert (seen, seen_whole) == ([64], [192])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    (found * torch.arange(len(found))).sum().backward()
    (expected * torch.arange(len(found))).sum().backward()
    ours, plain = ({n: p.grad for n, p in each.named_parameters()} for each in (model, untouched))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)


def test_a_classifier_finishes_the_last_tokens_alone() -> None:
    core = LlamaForSequenceClassification(LlamaConfig(**GROUPED, num_labels=1)).eval()
    assert allow_packing(core) is None
    last = torch.tensor([41, 84, 113, 155])
    inputs = pack(IDS, [(sum(group),) for group in SIZES])
    seen = rows_of_last_network(core)
    found = scores_at(core, inputs, last)
    assert seen == [64]
    states = core.model(**inputs, use_cache=False).last_hidden_state[0, last]
    torch.testing.assert_close(found, core.score(states)[:, 0])


def test_under_lora_as_well() -> None:
    model = wrap_lora(packing(), Lora(rank=4), task="CAUSAL_LM").eval()
    seen = rows_of_last_network(model)
    torch.testing.assert_close(logprobs(model), logprobs(packing()), rtol=0, atol=1e-5)
    assert seen == [64]


def test_activations_that_are_computed_twice_are_computed_whole() -> None:
    model, untouched = packing(), packing()
    recompute_activations(model.train())
    seen = rows_of_last_network(model)
    for each in (model, untouched):
        logprobs(each).sum().backward()
    assert set(seen) == {192}
    gradients, expected = ([p.grad for p in each.parameters()] for each in (model, untouched))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_is_not_packed_stays_whole() -> None:
    model = build()
    seen = rows_of_last_network(model)
    ids = IDS[:80].view(2, 40)
    logprobs_at(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.tensor([3]), ids[0, 4:5]
    )
    assert seen == [80]


def test_nothing_stays_behind_when_the_pass_fails() -> None:
    model = packing()
    broken = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logprobs(model)
    broken.remove()
    network = model.model.layers[1].mlp
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


def test_a_model_whose_last_layer_mixes_positions_is_not_packed() -> None:
    """The probe sees it, whatever the network is called."""
    model = build()
    network = model.model.layers[-1].mlp
    plain = network.forward
    network.forward = lambda states: plain(states + states.mean(1, keepdim=True))
    assert "packed rows change its hidden states" in str(allow_packing(model))
