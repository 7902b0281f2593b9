"""What PPO knows about a batch of sampled answers before its first update, and how that is cut into steps.

N episodes, R response columns (column j is the j-th token of an answer), B rows of a micro-batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.algo.ppo import kl_k1
from rlhf_cli.data.batches import TokenBatch, collate, split_by_tokens
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.models.actor_critic import ActorCritic


@dataclass(frozen=True, slots=True)
class Measured:
    """What the models say about N answers: all [N, R], nats; `mask` is True on response tokens."""

    rows: Sequence[EncodedText]
    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    entropy: Tensor

    @property
    def kl(self) -> float:
        """Estimate the divergence from the reference in nats per answer (k1, summed over tokens)."""
        return float(kl_k1(self.logprobs, self.reference_logprobs, self.mask).sum(1).mean())


@dataclass(frozen=True, slots=True)
class PpoBatch:
    """B episodes of one minibatch: tokens, and what was measured before the first update, all [B, R].

    `first` is True for the first minibatch of an iteration, where the policy is still the one that sampled.
    """

    tokens: TokenBatch
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    first: bool


@torch.no_grad()
def measure(actors: ActorCritic, rows: Sequence[EncodedText], micro_tokens: int) -> Measured:
    """Ask policy, reference and critic about N answers."""
    device = actors.policy.device
    lengths = torch.tensor([len(row.input_ids) - row.num_prompt for row in rows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(device)
    logprobs, reference, values, entropy = (torch.zeros(mask.shape, device=device) for _ in range(4))
    for indices in _micro_indices(rows, range(len(rows)), micro_tokens):
        batch = _collate(actors, rows, indices)
        inputs = (batch.input_ids, batch.attention_mask, batch.loss_mask)
        width = int(lengths[indices].max())
        logprobs[indices, :width], entropy[indices, :width] = actors.logprobs_and_entropy(*inputs)
        reference[indices, :width] = actors.reference_logprobs(*inputs)
        values[indices, :width] = actors.values(*inputs)
    return Measured(rows, mask, logprobs, reference, values, entropy)


def cut_steps(
    actors: ActorCritic,
    measured: Measured,
    advantages: Tensor,
    returns: Tensor,
    *,
    minibatches: Iterable[Sequence[int]],
    micro_tokens: int,
) -> list[list[PpoBatch]]:
    """Make one optimizer step of each minibatch of episode indices, cut into micro-batches by the token budget."""

    def batch(indices: list[int], *, first: bool) -> PpoBatch:
        width = int(measured.mask[indices].sum(1).max())
        return PpoBatch(
            tokens=_collate(actors, measured.rows, indices),
            mask=measured.mask[indices, :width],
            logprobs=measured.logprobs[indices, :width],
            values=measured.values[indices, :width],
            advantages=advantages[indices, :width],
            returns=returns[indices, :width],
            first=first,
        )

    return [
        [batch(part, first=number == 0) for part in _micro_indices(measured.rows, minibatch, micro_tokens)]
        for number, minibatch in enumerate(minibatches)
    ]


def _micro_indices(rows: Sequence[EncodedText], indices: Sequence[int], micro_tokens: int) -> list[list[int]]:
    return split_by_tokens(indices, lambda i: len(rows[i].input_ids), micro_tokens)


def _collate(actors: ActorCritic, rows: Sequence[EncodedText], indices: Sequence[int]) -> TokenBatch:
    policy = actors.policy
    return collate([rows[i] for i in indices], policy.vocabulary.pad_id).to(policy.device)
