"""Token batches: tensors of encoded rows, padded or packed, and how rows are cut into micro-batches.

B rows, T tokens. `loss_mask[b, t]` is True where token t of row b carries loss (its logits sit at t - 1).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf_cli.algo.packing import pack, predicted_by
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
class AnswerBatch:
    """A answers for one forward pass, N labelled tokens in them, in either of two layouts.

    inputs    what the model is called with; plain: one padded row per answer, `input_ids` and `attention_mask`
              [A, T]; packed: one row [1, T] without padding, made by `algo.packing.pack`

    What is read from the R x T outputs is the same in both, in the same order; indices count them row by row:
    predictor_index [N] is where token `target_ids` [N] is predicted, `answer_index` [N] names the answer it belongs
    to, `last_index` [A] is the last token of each answer. `num_read` counts the tokens the model reads, prompts too,
    padding not.
    """

    inputs: Mapping[str, Tensor]
    predictor_index: Tensor
    target_ids: Tensor
    answer_index: Tensor
    last_index: Tensor
    num_read: int
    origins: tuple[str, ...]

    @property
    def num_tokens(self) -> Tensor:
        """Count the labelled tokens of each answer -> [A]."""
        return torch.bincount(self.answer_index, minlength=len(self.last_index))

    def to(self, device: torch.device) -> "AnswerBatch":
        """Move the tensors to `device`; the layout of packed rows stays on the CPU, where attention reads it."""
        packed = "position_ids" in self.inputs
        return AnswerBatch(
            {
                name: tensor if packed and name == "attention_mask" else tensor.to(device)
                for name, tensor in self.inputs.items()
            },
            self.predictor_index.to(device),
            self.target_ids.to(device),
            self.answer_index.to(device),
            self.last_index.to(device),
            self.num_read,
            self.origins,
        )


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs as 2B answers, each chosen one in front of the rejected one.

    p_chosen, margin [B]; reference_logprobs [B, 2].
    """

    answers: AnswerBatch
    p_chosen: Tensor
    margin: Tensor
    reference_logprobs: Tensor

    def to(self, device: torch.device) -> "PairBatch":
        """Move the tensors to `device`."""
        return PairBatch(
            self.answers.to(device),
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
        input_ids[b, :length] = torch.from_numpy(np.asarray(row.input_ids, dtype=np.int64))
        attention_mask[b, :length] = 1
        loss_mask[b, :length] = torch.from_numpy(np.asarray(row.loss_mask, dtype=np.bool_))
    return TokenBatch(input_ids, attention_mask, loss_mask, tuple(row.origin for row in rows))


def collate_plain(answers: Sequence[EncodedText], pad_id: int) -> AnswerBatch:
    """Give each answer a padded row of its own, behind a copy of its prompt."""
    rows = collate(answers, pad_id)
    width = rows.input_ids.shape[1]
    row, column = rows.loss_mask[:, 1:].nonzero().unbind(1)
    lengths = rows.attention_mask.sum(1)
    return AnswerBatch(
        {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask},
        predictor_index=row * width + column,
        target_ids=rows.input_ids[row, column + 1],
        answer_index=row,
        last_index=torch.arange(len(answers)) * width + lengths - 1,
        num_read=int(lengths.sum()),
        origins=rows.origins,
    )


def collate_packed(answers: Sequence[EncodedText]) -> AnswerBatch:
    """Lay answers out behind their prompts in one row; neighbours with the same prompt share it."""
    sizes: list[list[int]] = []
    pieces: list[
        EncodedText
    ] = []  # what is new of each answer: all of it, or what comes behind a shared prompt
    for before, answer in zip([None, *answers], answers, strict=False):
        shared = answer.num_prompt if before is not None and _share_prompt(before, answer) else 0
        if not shared:
            sizes.append([answer.num_prompt])
        sizes[-1].append(len(answer.input_ids) - answer.num_prompt)
        pieces.append(EncodedText(answer.input_ids[shared:], answer.loss_mask[shared:], 0, answer.origin))
    input_ids, loss_mask = _concatenated(pieces)
    predictors = predicted_by(sizes)
    targets = (loss_mask & (predictors >= 0)).nonzero()[:, 0]
    ends = torch.tensor([len(piece.input_ids) for piece in pieces]).cumsum(0)
    return AnswerBatch(
        pack(input_ids, sizes),
        predictor_index=predictors[targets],
        target_ids=input_ids[targets],
        answer_index=torch.bucketize(targets, ends, right=True),
        last_index=ends - 1,
        num_read=len(input_ids),
        origins=tuple(answer.origin for answer in answers),
    )


def _share_prompt(one: EncodedText, other: EncodedText) -> bool:
    """Say whether two answers have the same prompt, and one that carries no loss."""
    size = one.num_prompt
    return (
        0 < size == other.num_prompt
        and one.input_ids[:size] == other.input_ids[:size]
        and not any(one.loss_mask[:size])
        and not any(other.loss_mask[:size])
    )


def _concatenated(rows: Sequence[EncodedText]) -> tuple[Tensor, Tensor]:
    ids = np.concatenate([np.asarray(row.input_ids, dtype=np.int64) for row in rows])
    mask = np.concatenate([np.asarray(row.loss_mask, dtype=np.bool_) for row in rows])
    return torch.from_numpy(ids), torch.from_numpy(mask)


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows lie in batches: packed without padding, answers behind a prompt they share, or as padded rows."""

    pad_id: int
    packed: bool

    def collate(self, answers: Sequence[EncodedText]) -> AnswerBatch:
        """Make one batch of answers."""
        return collate_packed(answers) if self.packed else collate_plain(answers, self.pad_id)

    def collate_pairs(self, pairs: Sequence[EncodedPair]) -> PairBatch:
        """Make one batch of pairs."""
        return PairBatch(
            self.collate([side for pair in pairs for side in (pair.chosen, pair.rejected)]),
            torch.tensor([pair.p_chosen for pair in pairs]),
            torch.tensor([pair.margin for pair in pairs]),
            torch.tensor([pair.reference_logprobs for pair in pairs]),
        )

    def length_of_pair(self, pair: EncodedPair) -> int:
        """Count the tokens of a pair: its prompt once when packed, else twice the longer row."""
        chosen, rejected = len(pair.chosen.input_ids), len(pair.rejected.input_ids)
        return chosen + rejected - pair.rejected.num_prompt if self.packed else 2 * max(chosen, rejected)

    def cut(
        self, items: Sequence[T], length: Callable[[T], int], micro_tokens: int, num_processes: int = 1
    ) -> list[list[T]]:
        """Cut items into micro-batches of at most `micro_tokens` tokens, padding included, for all processes."""
        split = pack_by_tokens if self.packed else split_by_tokens
        return split(items, length, micro_tokens, num_processes)


def split_by_tokens(
    items: Sequence[T], length: Callable[[T], int], micro_tokens: int, num_processes: int = 1
) -> list[list[T]]:
    """Cut items into micro-batches of at most `micro_tokens` padded tokens, longest first.

    Sorting by length keeps padding small. One item longer than the budget makes a micro-batch of its own. None
    holds more items than each of `num_processes` gets.
    """
    micro_batches: list[list[T]] = []
    share = math.ceil(len(items) / num_processes)
    for item in sorted(items, key=length, reverse=True):
        current = micro_batches[-1] if micro_batches else []
        fits = (len(current) + 1) * length(current[0]) <= micro_tokens if current else False
        if fits and len(current) < share:
            current.append(item)
        else:
            micro_batches.append([item])
    return micro_batches


def pack_by_tokens(
    items: Sequence[T], length: Callable[[T], int], micro_tokens: int, num_processes: int = 1
) -> list[list[T]]:
    """Spread items over as few micro-batches of at most `micro_tokens` tokens as will do, about equally full.

    Longest first, each to the emptiest; one that fits nowhere opens a micro-batch of its own. Each of
    `num_processes` gets the same number of them, if there are items enough.
    """
    lengths = [length(item) for item in items]
    rounds = math.ceil(sum(lengths) / micro_tokens / num_processes)
    num_parts = min(len(items), rounds * num_processes)
    parts: list[list[T]] = [[] for _ in range(num_parts)]
    fills = [0] * num_parts
    for i in sorted(range(len(items)), key=lambda i: -lengths[i]):
        part = fills.index(min(fills))
        if fills[part] and fills[part] + lengths[i] > micro_tokens:
            part = len(parts)
            parts.append([])
            fills.append(0)
        parts[part].append(items[i])
        fills[part] += lengths[i]
    return parts
