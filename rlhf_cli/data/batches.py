"""Token batches: tensors of encoded rows, padded or packed, and how rows are cut into micro-batches.

B rows, T tokens. `loss_mask[b, t]` is True where token t of row b carries loss (its logits sit at t - 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rlhf_cli.algo.packing import answer_spans, layout_of, positions
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

    attention_mask    plain: [A, T], one padded row per answer; packed: the layout of `algo.packing` [1, 1, G, 1 + K]
    input_ids         plain: [A, T]; packed: [1, T], each prompt once with its answers behind it, no padding
    position_ids      packed only: [1, T]

    What is read from the R x T outputs is the same in both, in the same order; indices count them row by row:
    predictor_index [N] is where token `target_ids` [N] is predicted, `answer_index` [N] names the answer it belongs
    to, `last_index` [A] is the last token of each answer.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None
    predictor_index: Tensor
    target_ids: Tensor
    answer_index: Tensor
    last_index: Tensor
    origins: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Give what the model is called with."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.position_ids is None else inputs | {"position_ids": self.position_ids}

    @property
    def num_tokens(self) -> Tensor:
        """Count the labelled tokens of each answer -> [A]."""
        return torch.bincount(self.answer_index, minlength=len(self.last_index))

    def to(self, device: torch.device) -> "AnswerBatch":
        """Move the tensors to `device`; the layout stays on the CPU, where attention reads it."""
        packed = self.position_ids is not None
        return AnswerBatch(
            self.input_ids.to(device),
            self.attention_mask if packed else self.attention_mask.to(device),
            None if self.position_ids is None else self.position_ids.to(device),
            self.predictor_index.to(device),
            self.target_ids.to(device),
            self.answer_index.to(device),
            self.last_index.to(device),
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
        input_ids[b, :length] = torch.as_tensor(row.input_ids)
        attention_mask[b, :length] = 1
        loss_mask[b, :length] = torch.as_tensor(row.loss_mask)
    return TokenBatch(input_ids, attention_mask, loss_mask, tuple(row.origin for row in rows))


def collate_plain(answers: Sequence[EncodedText], pad_id: int) -> AnswerBatch:
    """Give each answer a padded row of its own, behind a copy of its prompt."""
    rows = collate(answers, pad_id)
    width = rows.input_ids.shape[1]
    row, column = rows.loss_mask[:, 1:].nonzero().unbind(1)
    lengths = rows.attention_mask.sum(1)
    return AnswerBatch(
        rows.input_ids,
        rows.attention_mask,
        None,
        predictor_index=row * width + column,
        target_ids=rows.input_ids[row, column + 1],
        answer_index=row,
        last_index=torch.arange(len(answers)) * width + lengths - 1,
        origins=rows.origins,
    )


def collate_packed(answers: Sequence[EncodedText]) -> AnswerBatch:
    """Lay answers out behind their prompts in one row; neighbours with the same prompt share it."""
    groups = _by_prompt(answers)
    sizes = [
        [group[0].num_prompt, *(len(answer.input_ids) - answer.num_prompt for answer in group)]
        for group in groups
    ]
    pieces = [
        piece
        for group in groups
        for piece in (_ids(group[0])[: group[0].num_prompt], *(_ids(a)[a.num_prompt :] for a in group))
    ]
    input_ids = torch.cat(pieces)
    spans = answer_spans(sizes)
    targets = [
        torch.arange(begin, end)[_labels(answer, predictor)]
        for answer, (begin, end, predictor) in zip(answers, spans, strict=True)
    ]
    predictors = [
        torch.where(target == begin, predictor, target - 1)
        for target, (begin, _, predictor) in zip(targets, spans, strict=True)
    ]
    num_targets = torch.tensor([len(target) for target in targets])
    return AnswerBatch(
        input_ids[None],
        layout_of(sizes),
        positions(sizes),
        predictor_index=torch.cat(predictors),
        target_ids=input_ids[torch.cat(targets)],
        answer_index=torch.repeat_interleave(torch.arange(len(answers)), num_targets),
        last_index=torch.tensor([end - 1 for _, end, _ in spans]),
        origins=tuple(answer.origin for answer in answers),
    )


def _by_prompt(answers: Sequence[EncodedText]) -> list[list[EncodedText]]:
    groups: list[list[EncodedText]] = []
    for answer in answers:
        if groups and _share_prompt(groups[-1][0], answer):
            groups[-1].append(answer)
        else:
            groups.append([answer])
    return groups


def _share_prompt(one: EncodedText, other: EncodedText) -> bool:
    size = one.num_prompt
    return size == other.num_prompt and torch.equal(_ids(one)[:size], _ids(other)[:size])


def _ids(row: EncodedText) -> Tensor:
    return torch.as_tensor(row.input_ids, dtype=torch.long)


def _labels(row: EncodedText, predictor: int) -> Tensor:
    """Give the loss mask of the answer; a first token that nothing predicts carries no loss."""
    mask = torch.as_tensor(row.loss_mask, dtype=torch.bool)[row.num_prompt :]
    return mask if predictor >= 0 else mask & (torch.arange(len(mask)) > 0)


@dataclass(frozen=True, slots=True)
class PairLayout:
    """How pairs lie in batches: packed behind a prompt they share, or as plain padded rows."""

    pad_id: int
    packed: bool

    def collate(self, pairs: Sequence[EncodedPair]) -> PairBatch:
        """Make one batch of pairs."""
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        return PairBatch(
            collate_packed(sides) if self.packed else collate_plain(sides, self.pad_id),
            torch.tensor([pair.p_chosen for pair in pairs]),
            torch.tensor([pair.margin for pair in pairs]),
            torch.tensor([pair.reference_logprobs for pair in pairs]),
        )

    def length(self, pair: EncodedPair) -> int:
        """Count the tokens of a pair: its prompt once when packed, else twice the longer row."""
        chosen, rejected = len(pair.chosen.input_ids), len(pair.rejected.input_ids)
        return chosen + rejected - pair.rejected.num_prompt if self.packed else 2 * max(chosen, rejected)

    def cut(self, items: Sequence[T], length: Callable[[T], int], micro_tokens: int) -> list[list[T]]:
        """Cut items into micro-batches of at most `micro_tokens` tokens, padding included."""
        split = pack_by_tokens if self.packed else split_by_tokens
        return split(items, length, micro_tokens)


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


def pack_by_tokens(items: Sequence[T], length: Callable[[T], int], micro_tokens: int) -> list[list[T]]:
    """Spread items over as few micro-batches of at most `micro_tokens` tokens as will do, about equally full.

    Longest first, each to the emptiest; one that fits nowhere opens a micro-batch of its own.
    """
    lengths = [length(item) for item in items]
    num_parts = min(len(items), math.ceil(sum(lengths) / micro_tokens))
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
