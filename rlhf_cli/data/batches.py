"""Token batches: right-padded tensors of encoded rows, and how rows are cut into micro-batches.

B rows, T tokens. `loss_mask[b, t]` is True where token t of row b carries loss (its logits sit at t - 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rlhf_cli.data.encode import EncodedPair, EncodedText

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded rows: `input_ids` [B, T], `attention_mask` [B, T], `loss_mask` [B, T]."""

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    origins: tuple[str, ...]

    def to(self, device: torch.device) -> "TokenBatch":
        """Move the tensors to `device`."""
        return TokenBatch(
            self.input_ids.to(device), self.attention_mask.to(device), self.loss_mask.to(device), self.origins
        )


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs as 2B rows: the chosen ones first, the rejected ones behind, in the same order.

    p_chosen, margin [B]; reference_logprobs [2B] in the order of the rows.
    """

    rows: TokenBatch
    p_chosen: Tensor
    margin: Tensor
    reference_logprobs: Tensor

    def to(self, device: torch.device) -> "PairBatch":
        """Move the tensors to `device`."""
        return PairBatch(
            self.rows.to(device),
            self.p_chosen.to(device),
            self.margin.to(device),
            self.reference_logprobs.to(device),
        )


def collate(rows: Sequence[EncodedText], pad_id: int) -> TokenBatch:
    """Pad rows on the right to the longest of them."""
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    loss_mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for b, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[b, :length] = torch.tensor(row.input_ids)
        attention_mask[b, :length] = 1
        loss_mask[b, :length] = torch.tensor(row.loss_mask)
    return TokenBatch(input_ids, attention_mask, loss_mask, tuple(row.origin for row in rows))


def collate_pairs(pairs: Sequence[EncodedPair], pad_id: int) -> PairBatch:
    """Pad both sides of every pair to one width."""
    reference = [pair.reference_logprobs[side] for side in (0, 1) for pair in pairs]
    return PairBatch(
        collate([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], pad_id),
        torch.tensor([pair.p_chosen for pair in pairs]),
        torch.tensor([pair.margin for pair in pairs]),
        torch.tensor(reference),
    )


def pair_length(pair: EncodedPair) -> int:
    """Count the tokens of the longer side, which both rows are padded to."""
    return max(len(pair.chosen.input_ids), len(pair.rejected.input_ids))


def split_by_tokens(items: Sequence[T], length: Callable[[T], int], micro_tokens: int) -> list[list[T]]:
    """Cut items into micro-batches of at most `micro_tokens` padded tokens, longest first.

    Sorting by length keeps padding small. One item longer than the budget makes a micro-batch of its own.
    """
    micro_batches: list[list[T]] = []
    for item in sorted(items, key=length, reverse=True):
        current = micro_batches[-1] if micro_batches else []
        if current and (len(current) + 1) * length(current[0]) <= micro_tokens:
            current.append(item)
        else:
            micro_batches.append([item])
    return micro_batches
