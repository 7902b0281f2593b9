"""Every preference loss against values worked by hand, its limits, its symmetries and its gradient."""

import math
from typing import get_args

import pytest
import torch

from rlhf_cli.algo.dpo import NEEDS_WHOLE_BATCH, USES_LABEL_SMOOTHING, Kind, dpo_loss, implicit_rewards

KINDS = get_args(Kind)
PAIRWISE = sorted(set(KINDS) - NEEDS_WHOLE_BATCH)
LOG_2, LOG_3, LOG_4 = math.log(2), math.log(3), math.log(4)
LENGTHS = {"num_chosen_tokens": torch.tensor([2, 2]), "num_rejected_tokens": torch.tensor([4, 4])}


def smoothing_for(kind, value=0.25):
    return value if kind in USES_LABEL_SMOOTHING else 0.0


def worked_loss(kind, **options):
    """Two pairs at beta 1/2 whose log-ratios are (2 log 3, 0) and (0, 2 log 3)."""
    chosen, rejected = torch.tensor([2 * LOG_3, 0.0]), torch.tensor([0.0, 2 * LOG_3])
    reference = torch.tensor([-7.0, -5.0])
    policy = (chosen + reference, rejected + reference)
    return dpo_loss(kind, *policy, reference, reference, beta=0.5, **LENGTHS, **options).tolist()


# With a = beta c and b = beta r the pairs are (a, b) = (log 3, 0) and (0, log 3): x = a - b = +-log 3.
# sigma(log 3) = 3/4, so l(log 3) = log 4/3, l(-log 3) = log 4, l(0) = log 2, and 1 / (2 beta) = 1.
WORKED = {
    "sigmoid": (math.log(4 / 3), LOG_4),
    # per token: c/2 - r/4 = log 3 and -log(3)/2; times beta: log(3)/2 and -log(3)/4
    "sigmoid_norm": (math.log(1 + 3**-0.5), math.log(1 + 3**0.25)),
    "ipo": ((LOG_3 - 1) ** 2, (-LOG_3 / 2 - 1) ** 2),
    "hinge": (0.0, 1 + LOG_3),
    # the mixture is sigma(+-20 log 3), 1 and 0 to nine digits: exp(-log 3) and l(-log 3)
    "discopop": (1 / 3, LOG_4),
    "nca_pair": (math.log(4 / 3) + LOG_4 / 2 + LOG_2 / 2, LOG_2 + LOG_2 / 2 + LOG_4 / 2),
    "bco_pair": (math.log(4 / 3) + LOG_2, LOG_2 + LOG_4),
    "sppo_hard": ((2 * LOG_3 - 1) ** 2 + 1, 1 + (2 * LOG_3 + 1) ** 2),
    "apo_zero": (1 - 3 / 4 + 1 / 2, 1 - 1 / 2 + 3 / 4),
    "apo_down": (3 / 4 + 1 - 3 / 4, 1 / 2 + 1 - 1 / 4),
    # sorted (0, 2 log 3) against sorted (0, 2 log 3): x = 0 twice
    "aot_unpaired": (LOG_2, LOG_2),
    "robust": (math.log(4 / 3), LOG_4),
}
SMOOTHED = {
    "sigmoid": (0.75 * math.log(4 / 3) + 0.25 * LOG_4, 0.75 * LOG_4 + 0.25 * math.log(4 / 3)),
    "robust": (
        (0.75 * math.log(4 / 3) - 0.25 * LOG_4) / 0.5,
        (0.75 * LOG_4 - 0.25 * math.log(4 / 3)) / 0.5,
    ),
    # sigma(x) = 3/4 = 1 - eps: KL 0; sigma(x) = 1/4: 1/4 log(1/3) + 3/4 log 3 = log(3) / 2
    "exo_pair": (0.0, LOG_3 / 2),
}


@pytest.mark.parametrize("kind", WORKED)
def test_worked_pairs(kind):
    assert worked_loss(kind) == pytest.approx(WORKED[kind], abs=1e-6)


@pytest.mark.parametrize("kind", SMOOTHED)
def test_worked_pairs_with_label_smoothing(kind):
    assert worked_loss(kind, label_smoothing=0.25) == pytest.approx(SMOOTHED[kind], abs=1e-6)


def test_every_kind_is_worked():
    assert set(WORKED) | set(SMOOTHED) | {"aot"} == set(KINDS)


def test_aot_sorts_policy_and_reference_gaps_apart():
    # Policy gaps (3, 1) sort to (1, 3), reference gaps (0, 4) stay: x = (1, -1), where pairing says (3, -3).
    policy_chosen, reference_chosen, zero = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 4.0]), torch.zeros(2)
    losses = dpo_loss("aot", policy_chosen, zero, reference_chosen, zero, beta=1.0, **LENGTHS)
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-1)), math.log1p(math.e)], abs=1e-6)


def test_aot_unpaired_sorts_chosen_and_rejected_apart():
    # Chosen log-ratios (2, 0) sort to (0, 2), rejected (0, 1) stay: x = (0, 1), where pairing says (2, -1).
    chosen, rejected, zero = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(2)
    losses = dpo_loss("aot_unpaired", chosen, rejected, zero, zero, beta=1.0, **LENGTHS)
    assert losses.tolist() == pytest.approx([LOG_2, math.log1p(math.exp(-1))], abs=1e-6)


def test_the_policy_that_is_its_reference():
    # c = r = 0, eps 1/4, beta 1/2
    expected = {
        "sigmoid": LOG_2,
        "sigmoid_norm": LOG_2,
        "aot": LOG_2,
        "aot_unpaired": LOG_2,
        "robust": LOG_2,
        # KL(1/2, 1/2 || 3/4, 1/4) = 1/2 log 2/3 + 1/2 log 2 = 1/2 log 4/3
        "exo_pair": 0.5 * math.log(4 / 3),
        "hinge": 1.0,
        "ipo": 1.0,
        "discopop": 0.5 * LOG_2 + 0.5,
        "nca_pair": 2 * LOG_2,
        "bco_pair": 2 * LOG_2,
        "sppo_hard": 2.0,
        "apo_zero": 1.0,
        "apo_down": 1.0,
    }
    same = torch.tensor([-3.0, -9.0])
    for kind in KINDS:
        options = {"beta": 0.5, "label_smoothing": smoothing_for(kind), **LENGTHS}
        losses = dpo_loss(kind, same, same, same, same, **options)
        assert losses.tolist() == pytest.approx([expected[kind]] * 2, abs=1e-6), kind


def random_batch(num_rows, dtype=torch.float32):
    torch.manual_seed(0)
    logprobs = [-20 + 3 * torch.randn(num_rows, dtype=dtype) for _ in range(4)]
    lengths = {
        "num_chosen_tokens": torch.randint(1, 30, (num_rows,)),
        "num_rejected_tokens": torch.randint(1, 30, (num_rows,)),
    }
    return logprobs, lengths


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    logprobs, lengths = random_batch(5, torch.float64)

    def loss(policy_chosen, policy_rejected):
        options = {"beta": 0.3, "label_smoothing": smoothing_for(kind), **lengths}
        return dpo_loss(kind, policy_chosen, policy_rejected, *logprobs[2:], **options)

    assert torch.autograd.gradcheck(loss, (logprobs[0].requires_grad_(), logprobs[1].requires_grad_()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_parts_equals_the_step_unless_marked(kind):
    logprobs, lengths = random_batch(8)
    options = {"beta": 0.1, "label_smoothing": smoothing_for(kind)}
    whole = dpo_loss(kind, *logprobs, **options, **lengths).sum()
    parts = [
        dpo_loss(
            kind, *(t[rows] for t in logprobs), **options, **{k: v[rows] for k, v in lengths.items()}
        ).sum()
        for rows in (slice(0, 3), slice(3, 8))
    ]
    assert torch.allclose(sum(parts), whole, rtol=1e-5) == (kind not in NEEDS_WHOLE_BATCH)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_swapping_the_pair_moves_the_logistic_loss_by_its_argument(label_smoothing):
    # l(x) - l(-x) = -x, so the smoothed loss moves by -(1 - 2 eps) x.
    (pc, pr, rc, rr), lengths = random_batch(16)
    options = {"beta": 0.1, "label_smoothing": label_smoothing, **lengths}
    moved = dpo_loss("sigmoid", pc, pr, rc, rr, **options) - dpo_loss("sigmoid", pr, pc, rr, rc, **options)
    x = 0.1 * ((pc - rc) - (pr - rr))
    torch.testing.assert_close(moved, -(1 - 2 * label_smoothing) * x, atol=1e-6, rtol=1e-5)


def test_swapping_the_pair_and_inverting_the_smoothing_changes_nothing():
    (pc, pr, rc, rr), lengths = random_batch(16)
    for kind in ("sigmoid", "exo_pair"):
        there = dpo_loss(kind, pc, pr, rc, rr, beta=0.1, label_smoothing=0.2, **lengths)
        back = dpo_loss(kind, pr, pc, rr, rc, beta=0.1, label_smoothing=0.8, **lengths)
        torch.testing.assert_close(there, back)


def test_robust_is_unbiased_under_flipped_labels():
    # (1 - eps) robust(x) + eps robust(-x) = l(x), whatever eps.
    (pc, pr, rc, rr), lengths = random_batch(16)
    options = {"beta": 0.1, **lengths}
    right = dpo_loss("robust", pc, pr, rc, rr, label_smoothing=0.3, **options)
    wrong = dpo_loss("robust", pr, pc, rr, rc, label_smoothing=0.3, **options)
    torch.testing.assert_close(0.7 * right + 0.3 * wrong, dpo_loss("sigmoid", pc, pr, rc, rr, **options))


def test_beta_to_zero_leaves_the_gradient_of_half_the_difference():
    # l'(0) = -1/2, so d loss / d log pi(chosen) tends to -beta / 2.
    (pc, pr, rc, rr), lengths = random_batch(4)
    pc.requires_grad_()
    dpo_loss("sigmoid", pc, pr, rc, rr, beta=1e-6, **lengths).sum().backward()
    assert pc.grad.tolist() == pytest.approx([-0.5e-6] * 4, rel=1e-4)


@pytest.mark.parametrize("kind", PAIRWISE)
def test_runaway_log_ratios_stay_finite(kind):
    zero, far = torch.zeros(2), torch.tensor([1e4, -1e4])
    policy_chosen = far.clone().requires_grad_()
    options = {"beta": 1.0, "label_smoothing": smoothing_for(kind), **LENGTHS}
    losses = dpo_loss(kind, policy_chosen, -far, zero, zero, **options)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert policy_chosen.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ipo", "sigmoid_norm"])
def test_an_empty_completion_has_no_say(kind):
    zero, none = torch.zeros(1), torch.tensor([0])
    options = {"num_chosen_tokens": none, "num_rejected_tokens": none}
    assert dpo_loss(kind, zero, zero, zero, zero, beta=0.5, **options).isfinite().all()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - USES_LABEL_SMOOTHING))
def test_label_smoothing_is_never_ignored(kind):
    with pytest.raises(ValueError, match=f"{kind} has no label smoothing, got 0.1"):
        worked_loss(kind, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("kind", "value"), [("exo_pair", 0.0), ("exo_pair", 1.0), ("robust", 0.5), ("sigmoid", 1.0)]
)
def test_label_smoothing_outside_its_range_is_refused(kind, value):
    with pytest.raises(ValueError, match=f"{kind} needs label_smoothing in"):
        worked_loss(kind, label_smoothing=value)


def test_implicit_rewards_are_scaled_log_ratios_without_gradient():
    rewards = implicit_rewards(
        torch.tensor([-1.0, -4.0], requires_grad=True), torch.tensor([-3.0, -3.0]), beta=0.1
    )
    assert rewards.tolist() == pytest.approx([0.2, -0.1])
    assert not rewards.requires_grad
