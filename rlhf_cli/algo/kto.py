"""KTO: a loss for answers that were each called good or bad on their own."""

import torch
from torch import Tensor


def kto_gains(logratios: Tensor, stranger_logratios: Tensor, good_mask: Tensor, *, beta: float) -> Tensor:
    """Measure how far each answer has moved the way its label says: three [B] -> [B].

        x = beta (r - z_0) for a good answer, beta (z_0 - r) for a bad one,     r = log pi(y|x) - log pi_ref(y|x)

    z_0 = max(0, mean of the log-ratios of strangers), answers to other prompts put behind these: it estimates
    KL(pi || pi_ref) and carries no gradient. Ethayarajh et al. 2024 (arXiv 2402.01306) section 4.1.
    """
    divergence = stranger_logratios.detach().mean().clamp(min=0.0)
    gain = beta * (logratios - divergence)
    return torch.where(good_mask, gain, -gain)


def kto(gains: Tensor, good_mask: Tensor, *, good_weight: float, bad_weight: float) -> Tensor:
    """lambda (1 - sigma(x)) with the x of `kto_gains` and the weight lambda of the answer's label: two [B] -> [B].

    Ethayarajh et al. 2024 (arXiv 2402.01306) eq. 8.
    """
    weights = torch.where(good_mask, good_weight, bad_weight)
    return weights * torch.sigmoid(-gains)
