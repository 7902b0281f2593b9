"""Log-probs through the head on labelled positions only, against the full logits."""

import pytest
import torch
from tiny_models import MODELS, VOCAB, build, stir
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_cli.algo.tensors import shift_logprobs
from rlhf_cli.config.sections import Loop, Lora
from rlhf_cli.models import scoring
from rlhf_cli.models.device import set_up_training
from rlhf_cli.models.load import wrap_lora
from rlhf_cli.models.scoring import labelled_logprobs, logprobs_and_entropy_at, row_of_label

IDS = torch.randint(2, 258, (3, 12), generator=torch.Generator().manual_seed(5))
LENGTHS = torch.tensor([[12], [7], [9]])
ATTENTION = (torch.arange(12) < LENGTHS).long()
LABELS = torch.zeros(3, 12, dtype=torch.bool)
LABELS[0, 3:12] = LABELS[1, 2:7] = LABELS[2, 5:6] = True
LABELS[2, 8] = True


def full_logprobs(model: PreTrainedModel, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute log-probs [N] and entropies [N] from all logits."""
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=ATTENTION).logits
    distribution = (logits / temperature).log_softmax(-1)
    entropy = -(distribution.exp() * distribution).sum(-1)
    taken = distribution[:, :-1].gather(-1, IDS[:, 1:, None])[..., 0]
    return taken[LABELS[:, 1:]], entropy[:, :-1][LABELS[:, 1:]]


@pytest.fixture(params=[*MODELS, "lora"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return with_adapters() if request.param == "lora" else build(request.param)


def with_adapters() -> PreTrainedModel:
    wrapped = wrap_lora(build(), Lora(rank=4), task="CAUSAL_LM").eval()
    stir(wrapped)
    return wrapped


def logprobs_and_entropy(model: PreTrainedModel, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Ask for the labelled tokens, where they lie in the padded rows."""
    row, column = LABELS[:, 1:].nonzero().unbind(1)
    index, ids = row * IDS.shape[1] + column, IDS[:, 1:][LABELS[:, 1:]]
    inputs = {"input_ids": IDS, "attention_mask": ATTENTION}
    return logprobs_and_entropy_at(model, inputs, index, ids, temperature=temperature)


def test_labelled_logprobs_are_those_of_the_full_logits(model: PreTrainedModel) -> None:
    expected, _ = full_logprobs(model)
    with torch.no_grad():
        torch.testing.assert_close(
            labelled_logprobs(model, IDS, ATTENTION, LABELS), expected, rtol=0, atol=1e-6
        )


def test_temperature_and_entropy(model: PreTrainedModel) -> None:
    logprobs, entropy = logprobs_and_entropy(model, temperature=0.7)
    expected, expected_entropy = full_logprobs(model, 0.7)
    torch.testing.assert_close(logprobs.detach(), expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0, atol=1e-5)
    assert not entropy.requires_grad


def test_gemmas_cap_is_felt() -> None:
    uncapped = build("gemma2", final_logit_softcapping=None)
    uncapped.load_state_dict(build("gemma2").state_dict())
    assert not torch.allclose(full_logprobs(uncapped)[0], full_logprobs(build("gemma2"))[0], atol=1e-2)


def test_gradients_are_those_of_the_full_logits() -> None:
    gradients = []
    for narrow in (True, False):
        model = build("tied llama")
        if narrow:
            loss = labelled_logprobs(model, IDS, ATTENTION, LABELS).sum()
        else:
            distribution = model(input_ids=IDS, attention_mask=ATTENTION).logits.log_softmax(-1)
            loss = distribution[:, :-1].gather(-1, IDS[:, 1:, None])[..., 0][LABELS[:, 1:]].sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_head_is_whole_again_afterwards() -> None:
    model = build()
    labelled_logprobs(model, IDS, ATTENTION, LABELS)
    assert model(input_ids=IDS).logits.shape == (3, 12, 258)


def test_a_label_on_the_first_token_is_left_out() -> None:
    model = build()
    first = LABELS.clone()
    first[:, 0] = True
    with torch.no_grad():
        one, other = (labelled_logprobs(model, IDS, ATTENTION, mask) for mask in (LABELS, first))
    assert torch.equal(one, other)
    assert torch.equal(row_of_label(LABELS), row_of_label(first))


def test_rows_of_labels_by_hand() -> None:
    assert row_of_label(LABELS).tolist() == [0] * 9 + [1] * 5 + [2] * 2
    assert row_of_label(torch.tensor([[True, False], [False, True]])).tolist() == [1]


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of the sixteen labelled positions at a time."""
    monkeypatch.setattr(scoring, "MOST_LOGITS", 5 * VOCAB)


@pytest.mark.usefixtures("few_at_once")
def test_log_probs_and_entropies_in_parts(model: PreTrainedModel) -> None:
    logprobs, entropy = logprobs_and_entropy(model, temperature=0.7)
    expected, expected_entropy = full_logprobs(model, 0.7)
    torch.testing.assert_close(logprobs.detach(), expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "tied llama", "gemma2", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_gradients_in_parts(name: str, monkeypatch: pytest.MonkeyPatch, *, checkpointing: bool) -> None:
    gradients = []
    for most_logits in (scoring.MOST_LOGITS, 5 * VOCAB):
        monkeypatch.setattr(scoring, "MOST_LOGITS", most_logits)
        model = with_adapters() if name == "lora" else build(name)
        set_up_training(
            model.get_base_model() if name == "lora" else model, Loop(gradient_checkpointing=checkpointing)
        )
        logprobs = labelled_logprobs(model, IDS, ATTENTION, LABELS)
        (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("few_at_once")
def test_logits_in_parts_are_never_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(logits: Tensor, target_ids: Tensor, *, temperature: float) -> Tensor:
        sizes.append(logits.numel())
        return shift_logprobs(logits, target_ids, temperature=temperature)

    monkeypatch.setattr(scoring, "shift_logprobs", watched)
    labelled_logprobs(build(), IDS, ATTENTION, LABELS).sum().backward()
    assert max(sizes) == 5 * VOCAB
    assert len(sizes) == 2 * 13  # 16 labels in 64 places; forward, and once more in the backward pass
