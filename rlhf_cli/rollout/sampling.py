"""One token per row from logits and a uniform random number: by rank in the cumulative probabilities, or greedily."""

import torch
from torch import Tensor

from rlhf_cli.rollout.engine import Sampling


def draw_uniforms(seed: int, num_tokens: int) -> Tensor:
    """Draw every random number a prompt can need, [num_tokens] in [0, 1), from a CPU generator of its own."""
    return torch.rand(num_tokens, generator=torch.Generator().manual_seed(seed))


def sample_tokens(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return tokens [R] and their log-probabilities [R] for logits [R, V] and uniforms [R].

    The token is the first whose cumulative probability, in the order of the vocabulary, exceeds u times the
    total. That product rounds below the total for every float32 u in [0, 1), so such a token exists. Logits that
    are not finite numbers give NaN log-probabilities.
    """
    if sampling.temperature == 0:
        all_logprobs = logits.float().log_softmax(-1)
        sampled = all_logprobs.argmax(-1, keepdim=True)
    else:
        all_logprobs = (logits.float() / sampling.temperature).log_softmax(-1)
        cumulative = nucleus(all_logprobs.exp(), sampling.top_p).cumsum(-1)
        sampled = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)
        # NaN finds no place at all; its log-probability is NaN for any token.
        sampled = sampled.clamp(max=logits.shape[-1] - 1)
    return sampled.squeeze(1), all_logprobs.gather(-1, sampled).squeeze(1)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero [R, V] but for the likeliest tokens that together reach `top_p` (Holtzman et al. 2020)."""
    if top_p >= 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    kept = ordered.where(ordered.cumsum(-1) - ordered < top_p, 0)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)
