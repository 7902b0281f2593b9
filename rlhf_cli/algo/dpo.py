"""Direct preference losses: one value per pair, from sums of completion log-probabilities.

Notation, all [B]: c = log pi(chosen) - log pi_ref(chosen), r the same for rejected, x = beta (c - r),
l(x) = -log sigma(x) = log(1 + exp(-x)), eps = label_smoothing.
"""

from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal[
    "sigmoid",
    "sigmoid_norm",
    "aot",
    "aot_unpaired",
    "robust",
    "exo_pair",
    "hinge",
    "ipo",
    "discopop",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
]
# These sort over the rows they are given: a step split into micro-batches or ranks computes something else.
NEEDS_WHOLE_BATCH: frozenset[Kind] = frozenset({"aot", "aot_unpaired"})
USES_LABEL_SMOOTHING: frozenset[Kind] = NEEDS_WHOLE_BATCH | {"sigmoid", "sigmoid_norm", "robust", "exo_pair"}

DISCOPOP_TEMPERATURE = 0.05


def dpo_loss(
    kind: Kind,
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    num_chosen_tokens: Tensor,
    num_rejected_tokens: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return one loss per pair: four sums over completion tokens [B], two lengths [B] -> [B].

    The formula and paper of each kind stand at the function it calls. Their mean over a step is the same
    however the step is split, except for NEEDS_WHOLE_BATCH. Lengths matter to "ipo" and "sigmoid_norm" only:
    they compare log-ratios per token. "aot" compares sorted log-ratios in place of paired ones: each row
    of its result is a rank, not a pair (Melnyk et al. 2024, arXiv 2406.05882).

    Raises ValueError where `label_smoothing` is set for a kind without it, or outside the kind's range.
    """
    _check_label_smoothing(kind, label_smoothing)
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    per_token = _per_token(chosen, num_chosen_tokens) - _per_token(rejected, num_rejected_tokens)
    match kind:
        case "sigmoid":
            return smoothed_logistic(beta * (chosen - rejected), label_smoothing)
        case "sigmoid_norm":
            return smoothed_logistic(beta * per_token, label_smoothing)
        case "ipo":
            return ipo(per_token, beta)
        case "aot":
            policy_gaps = (policy_chosen - policy_rejected).sort().values
            reference_gaps = (reference_chosen - reference_rejected).sort().values
            return smoothed_logistic(beta * (policy_gaps - reference_gaps), label_smoothing)
        case "aot_unpaired":
            return smoothed_logistic(beta * (chosen.sort().values - rejected.sort().values), label_smoothing)
        case "robust":
            return robust(beta * (chosen - rejected), label_smoothing)
        case "exo_pair":
            return exo_pair(beta * (chosen - rejected), label_smoothing)
        case "hinge":
            return hinge(beta * (chosen - rejected))
        case "discopop":
            return discopop(beta * (chosen - rejected))
        case "sppo_hard":
            return sppo_hard(chosen, rejected, beta)
        case "nca_pair" | "bco_pair" | "apo_zero" | "apo_down":
            return _pointwise(kind, beta * chosen, beta * rejected)
        case _:
            assert_never(kind)


def implicit_rewards(policy: Tensor, reference: Tensor, *, beta: float) -> Tensor:
    """Return beta (log pi - log pi_ref) without gradient: [B] -> [B]. Rafailov et al. 2023, section 5.1."""
    return beta * (policy - reference).detach()


def smoothed_logistic(x: Tensor, eps: float) -> Tensor:
    """(1 - eps) l(x) + eps l(-x): [B] -> [B].

    DPO at eps = 0: Rafailov et al. 2023 (arXiv 2305.18290) eq. 7. cDPO: Mitchell 2023, "A note on DPO
    with noisy preferences". On log-ratios per token it is length-normalised DPO: Lambert et al. 2024
    (arXiv 2411.15124).
    """
    return -(1 - eps) * F.logsigmoid(x) - eps * F.logsigmoid(-x)


def robust(x: Tensor, eps: float) -> Tensor:
    """((1 - eps) l(x) - eps l(-x)) / (1 - 2 eps): [B] -> [B], may be negative.

    Its mean over labels flipped with probability eps is l of the true label: Chowdhury et al. 2024
    (arXiv 2403.00409).
    """
    return (-(1 - eps) * F.logsigmoid(x) + eps * F.logsigmoid(-x)) / (1 - 2 * eps)


def exo_pair(x: Tensor, eps: float) -> Tensor:
    """KL(Bernoulli(sigma(x)) || Bernoulli(1 - eps)): [B] -> [B], 0 where sigma(x) = 1 - eps.

    Ji et al. 2024 (arXiv 2402.00856) eq. 16 with two completions; infinite at eps = 0.
    """
    smoothing = x.new_tensor(eps)
    win = torch.sigmoid(x) * (F.logsigmoid(x) - torch.log1p(-smoothing))
    return win + torch.sigmoid(-x) * (F.logsigmoid(-x) - torch.log(smoothing))


def hinge(x: Tensor) -> Tensor:
    """max(0, 1 - x): [B] -> [B]. Zhao et al. 2023 (arXiv 2305.10425), with the log-ratios of
    Liu et al. 2023 (arXiv 2309.06657)."""
    return torch.relu(1 - x)


def ipo(difference: Tensor, beta: float) -> Tensor:
    """(c/n_c - r/n_r - 1 / (2 beta))^2: difference per token [B] -> [B].

    Azar et al. 2023 (arXiv 2310.12036) eq. 17, tau = beta. The paper writes sums; per-token means are what
    its results were made with, and keep the target 1 / (2 beta) in reach whatever the length.
    """
    return (difference - 1 / (2 * beta)).square()


def discopop(x: Tensor) -> Tensor:
    """(1 - m) l(x) + m exp(-x), m = sigma(x / 0.05): [B] -> [B]. Lu et al. 2024 (arXiv 2406.08414) eq. 5."""
    mix = torch.sigmoid(x / DISCOPOP_TEMPERATURE)
    # Left of the clamp m is 0 and exp(-x) overflows: 0 * inf would be NaN.
    exponential = torch.exp(-x.clamp(min=-20.0))
    return -(1 - mix) * F.logsigmoid(x) + mix * exponential


def sppo_hard(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(c - 1/(2 beta))^2 + (r + 1/(2 beta))^2: log-ratios [B] -> [B].

    Wu et al. 2024 (arXiv 2405.00675) eq. 4.7, win probability 1 for chosen and 0 for rejected.
    """
    target = 1 / (2 * beta)
    return (chosen - target).square() + (rejected + target).square()


def nca_pair(a: Tensor, b: Tensor) -> Tensor:
    """l(a) + l(-a)/2 + l(-b)/2, a = beta c, b = beta r: [B] -> [B]. Chen et al. 2024 (arXiv 2402.05369)."""
    return -F.logsigmoid(a) - 0.5 * F.logsigmoid(-a) - 0.5 * F.logsigmoid(-b)


def bco_pair(a: Tensor, b: Tensor) -> Tensor:
    """l(a) + l(-b), a = beta c, b = beta r: [B] -> [B]. Jung et al. 2024 (arXiv 2404.04656).

    The paper's reward shift delta, a running mean over past steps, is 0 here: the loss has no state.
    """
    return -F.logsigmoid(a) - F.logsigmoid(-b)


def apo_zero(a: Tensor, b: Tensor) -> Tensor:
    """1 - sigma(a) + sigma(b), a = beta c, b = beta r: [B] -> [B]; chosen up, rejected down.

    D'Oosterlinck et al. 2024 (arXiv 2408.06266) eq. 7.
    """
    return torch.sigmoid(-a) + torch.sigmoid(b)


def apo_down(a: Tensor, b: Tensor) -> Tensor:
    """sigma(a) + 1 - sigma(a - b), a = beta c, b = beta r: [B] -> [B]; both down, rejected further.

    D'Oosterlinck et al. 2024 (arXiv 2408.06266) eq. 8.
    """
    return torch.sigmoid(a) + torch.sigmoid(b - a)


def _per_token(sums: Tensor, num_tokens: Tensor) -> Tensor:
    # An empty completion sums to 0: the clamp only keeps 0/0 away.
    return sums / num_tokens.clamp(min=1)


def _pointwise(kind: Literal["nca_pair", "bco_pair", "apo_zero", "apo_down"], a: Tensor, b: Tensor) -> Tensor:
    match kind:
        case "nca_pair":
            return nca_pair(a, b)
        case "bco_pair":
            return bco_pair(a, b)
        case "apo_zero":
            return apo_zero(a, b)
        case "apo_down":
            return apo_down(a, b)


def _check_label_smoothing(kind: Kind, eps: float) -> None:
    if kind not in USES_LABEL_SMOOTHING and eps != 0.0:
        raise ValueError(f"{kind} has no label smoothing, got {eps}")
    if kind == "exo_pair" and not 0.0 < eps < 1.0:
        raise ValueError(f"exo_pair needs label_smoothing in (0, 1), got {eps}")
    if not 0.0 <= eps < (0.5 if kind == "robust" else 1.0):
        raise ValueError(f"{kind} needs label_smoothing in [0, {0.5 if kind == 'robust' else 1}), got {eps}")
