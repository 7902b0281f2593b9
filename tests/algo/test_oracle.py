"""The losses against values that another trainer, TRL 1.16.0, computed in fp32 on CPU.

The numbers are frozen. The last three tests start from weights and token ids instead, and skip where the
oracle folder is absent.
"""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from rlhf_cli.algo.dpo import Kind, dpo_loss
from rlhf_cli.algo.losses import bradley_terry, sft_loss
from rlhf_cli.algo.tensors import segment_sum, shift_logprobs

CHOSEN_SCORES = torch.tensor([2.765310049057007, 4.7972211837768555, 5.78711462020874])
REJECTED_SCORES = torch.tensor([3.6682612895965576, 6.283843040466309, 5.965358734130859])

# Sums over completion and EOS.
POLICY_CHOSEN = torch.tensor([-16.845657348632812, -72.33251190185547, -34.04798126220703])
POLICY_REJECTED = torch.tensor([-39.313690185546875, -21.381187438964844, -39.606201171875])
REFERENCE_CHOSEN = torch.tensor([-16.54527473449707, -71.42236328125, -33.42936325073242])
REFERENCE_REJECTED = torch.tensor([-39.04991149902344, -22.251920700073242, -38.74711608886719])
NUM_CHOSEN_TOKENS, NUM_REJECTED_TOKENS = torch.tensor([3, 13, 6]), torch.tensor([7, 4, 7])

# Mean over the three pairs at beta 0.1, with the label smoothing that entered the value.
DPO_LOSSES: list[tuple[Kind, float, float]] = [
    ("sigmoid", 0.0, 0.7207751870155334),
    ("sigmoid", 0.1, 0.7155184149742126),
    ("hinge", 0.0, 1.052567481994629),
    ("ipo", 0.0, 26.130739212036133),
    ("exo_pair", 0.1, 0.540956437587738),
    ("nca_pair", 0.0, 1.4005752801895142),
    ("robust", 0.1, 0.7273461818695068),
    ("bco_pair", 0.0, 1.4137722253799438),
    ("sppo_hard", 0.0, 56.212432861328125),
    ("aot", 0.1, 0.7155185341835022),
    ("aot_unpaired", 0.1, 0.7147987484931946),
    ("apo_zero", 0.0, 1.0131347179412842),
    ("apo_down", 0.0, 0.9978669285774231),
    ("discopop", 0.0, 0.8348782062530518),
    ("sigmoid_norm", 0.0, 0.6986920833587646),
]

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
needs_oracle = pytest.mark.skipif(
    not ORACLE.exists(), reason="the oracle's model is not beside the repository"
)


def close(expected: float) -> object:
    # fp32 sums of three squares near 56 carry 1.5e-5 of rounding: relative there, 1e-5 elsewhere.
    return pytest.approx(expected, abs=1e-5, rel=5e-7)


@pytest.mark.parametrize(
    ("margins", "center", "expected"),
    [
        ((0.0, 0.0, 0.0), 0.0, 1.2399924993515015),
        ((0.0, 0.5, 1.0), 0.0, 1.6016706228256226),
        ((0.0, 0.0, 0.0), 0.01, 2.247663974761963),
    ],
)
def test_bradley_terry(margins, center, expected):
    options = {"p_chosen": torch.ones(3), "margin": torch.tensor(margins), "center": center}
    assert bradley_terry(CHOSEN_SCORES, REJECTED_SCORES, **options).mean().item() == close(expected)


@pytest.mark.parametrize(("kind", "label_smoothing", "expected"), DPO_LOSSES)
def test_dpo(kind, label_smoothing, expected):
    losses = dpo_loss(
        kind,
        POLICY_CHOSEN,
        POLICY_REJECTED,
        REFERENCE_CHOSEN,
        REFERENCE_REJECTED,
        beta=0.1,
        label_smoothing=label_smoothing,
        num_chosen_tokens=NUM_CHOSEN_TOKENS,
        num_rejected_tokens=NUM_REJECTED_TOKENS,
    )
    assert losses.mean().item() == close(expected)


def test_every_kind_is_compared():
    assert {kind for kind, _, _ in DPO_LOSSES} == set(get_args(Kind))


def test_sft_on_the_chosen_side():
    assert (sft_loss(POLICY_CHOSEN) / NUM_CHOSEN_TOKENS.sum()).item() == close(5.601189136505127)


@pytest.fixture(scope="module")
def oracle():
    return json.loads((ORACLE / "oracle.json").read_text())


@pytest.fixture
def model():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        ORACLE / "tiny-qwen2", dtype=torch.float32
    ).eval()


def perturb(model):
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@torch.no_grad()
def completion_logprobs(model, input_ids, completion_mask):
    """Return log-probs of completion tokens [N] and the row [N] of each; right padding needs no mask."""
    row, column = completion_mask.nonzero(as_tuple=True)
    logits = model(input_ids=input_ids).logits[row, column - 1]
    return shift_logprobs(logits, input_ids[row, column]), row


@needs_oracle
def test_sft_from_weights(model, oracle):
    case = oracle["sft_prompt_completion"]
    logprobs, _ = completion_logprobs(
        model, torch.tensor(case["input_ids"]), torch.tensor(case["labels"]) != -100
    )
    assert logprobs.numel() == case["n_label_tokens"]
    assert (sft_loss(logprobs) / logprobs.numel()).item() == close(case["trl"])


@needs_oracle
def test_dpo_logprobs_from_weights(model, oracle):
    case = oracle["dpo_sigmoid"]
    input_ids, mask = torch.tensor(case["input_ids"]), torch.tensor(case["completion_mask"]).bool()
    reference = segment_sum(*completion_logprobs(model, input_ids, mask), 6)
    perturb(model)
    policy = segment_sum(*completion_logprobs(model, input_ids, mask), 6)
    torch.testing.assert_close(
        reference, torch.cat([REFERENCE_CHOSEN, REFERENCE_REJECTED]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(policy, torch.cat([POLICY_CHOSEN, POLICY_REJECTED]), atol=1e-4, rtol=0)
    assert mask.sum(1).tolist() == [*NUM_CHOSEN_TOKENS.tolist(), *NUM_REJECTED_TOKENS.tolist()]
    lengths = {"num_chosen_tokens": mask.sum(1)[:3], "num_rejected_tokens": mask.sum(1)[3:]}
    sides = (policy[:3], policy[3:], reference[:3], reference[3:])
    loss = dpo_loss("sigmoid", *sides, beta=0.1, label_smoothing=0.1, **lengths).mean().item()
    assert loss == close(case["manual_cdpo"])


@needs_oracle
@torch.no_grad()
def test_reward_scores_from_weights(model, oracle):
    input_ids = torch.tensor(oracle["dpo_sigmoid"]["input_ids"])
    last = torch.tensor(oracle["dpo_sigmoid"]["completion_mask"]).cumsum(1).argmax(1)
    hidden = model.model(input_ids=input_ids).last_hidden_state[torch.arange(6), last]
    torch.manual_seed(1)
    scores = hidden @ torch.empty(1, hidden.shape[1]).normal_()[0]
    torch.testing.assert_close(scores, torch.cat([CHOSEN_SCORES, REJECTED_SCORES]), atol=1e-5, rtol=0)
