"""Attention of packed rows by the matrix products of a CPU, which are faster than its attention kernels.

Only queries, keys, values and the result are kept for the backward pass; attention weights, as many as the square of a
row's length for each head, are computed once more there (Dao et al. 2022, algorithm 4, without its tiles of keys).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf_cli.algo.packing import SHAPE_STEP, Sizes

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens that attend to themselves, causally, and to all of a prompt in front of them; both are runs of a row."""

    prompt: slice
    own: slice

    @property
    def num_before(self) -> int:
        size: int = self.prompt.stop - self.prompt.start
        return size

    def take(self, states: Tensor) -> Tensor:
        """Take the keys or values [H, S, D] of what is seen, with zeros behind them up to a size that occurs often."""
        seen = states[:, self.own]
        if self.num_before:
            seen = torch.cat([states[:, self.prompt], seen], dim=1)
        return F.pad(seen, (0, 0, 0, -seen.shape[1] % SHAPE_STEP))

    def add(self, total: Tensor, part: Tensor) -> None:
        """Add what `take` made of the gradient [H, S, D] to where it came from."""
        num_own = self.own.stop - self.own.start
        total[:, self.own] += part[:, self.num_before : self.num_before + num_own]
        if self.num_before:
            total[:, self.prompt] += part[:, : self.num_before]


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of a span at once: `rows` of the packed row, which see no more than the first `num_keys` keys.

    Sizes are rounded up: what fills them lies behind the last query, where no other sees it.
    """

    rows: slice
    num_keys: int
    num_before: int

    def take(self, states: Tensor) -> Tensor:
        """Take what belongs to the queries [H, L, D], filled up with zeros."""
        taken = states[:, self.rows]
        return F.pad(taken, (0, 0, 0, -taken.shape[1] % SHAPE_STEP))

    def weights(self, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
        """Give the attention weights [H, L, S]."""
        shape = queries.shape[1], self.num_keys
        bias = torch.full(shape, -torch.inf, dtype=queries.dtype).triu(self.num_before + 1)
        return torch.baddbmm(bias, queries, keys[:, : self.num_keys].mT, alpha=scale).softmax(-1)


def _spans(layout: Sizes) -> Iterator[_Span]:
    """Walk each prompt with its first answer behind it as one run, then its other answers."""
    begin = 0
    for prompt, *answers in layout:
        end = begin + prompt
        yield _Span(slice(begin, begin), slice(begin, end + sum(answers[:1])))
        first, end = begin, end + sum(answers[:1])
        for answer in answers[1:]:
            if answer > 0:
                yield _Span(slice(first, first + prompt), slice(end, end + answer))
            end += answer
        begin = end


def _blocks(span: _Span) -> Iterator[_Block]:
    for begin in range(span.own.start, span.own.stop, _QUERIES_AT_ONCE):
        end = min(begin + _QUERIES_AT_ONCE, span.own.stop)
        num_before = span.num_before + begin - span.own.start
        num_keys = num_before + end - begin
        yield _Block(slice(begin, end), num_keys + -num_keys % SHAPE_STEP, num_before)


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, layout: Sizes, scale: float) -> Tensor:
    """Attend within each text of a packed row: [1, H, N, D], twice [1, K, N, D] -> [1, N, H, D].

    Head h of H reads key head h * K // H.
    """
    attended: Tensor = _Attention.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Sequence[Sequence[int]], scale: float
    ) -> Tensor:
        num_heads, num_tokens = query.shape[1:3]
        attended = value.new_zeros(1, num_tokens, num_heads, value.shape[-1])
        by_head = attended[0].transpose(0, 1)
        for span in _spans(layout):
            keys, values = (_repeat(span.take(states[0]), num_heads) for states in (key, value))
            for block in _blocks(span):
                weights = block.weights(block.take(query[0]), keys, scale)
                result = torch.bmm(weights, values[:, : block.num_keys])
                by_head[:, block.rows] = result[:, : block.rows.stop - block.rows.start]
        ctx.save_for_backward(query, key, value, attended)
        ctx.layout, ctx.scale = layout, scale
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, attended = ctx.saved_tensors
        num_heads, num_key_heads = query.shape[1], key.shape[1]
        gradient = gradients[0][0].transpose(0, 1)
        # The softmax subtracts, for each query, its gradient times its result.
        means = torch.linalg.vecdot(gradient, attended[0].transpose(0, 1)).unsqueeze(-1)
        of_query, of_key, of_value = (torch.zeros_like(states) for states in (query, key, value))
        for span in _spans(ctx.layout):
            keys, values = (_repeat(span.take(states[0]), num_heads) for states in (key, value))
            of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
            for block in _blocks(span):
                queries, results, num_keys = block.take(query[0]), block.take(gradient), block.num_keys
                weights = block.weights(queries, keys, ctx.scale)
                of_values[:, :num_keys].baddbmm_(weights.mT, results)
                of_scores = torch.bmm(results, values[:, :num_keys].mT)
                of_scores.sub_(block.take(means)).mul_(weights)
                of_keys[:, :num_keys].baddbmm_(of_scores.mT, queries, alpha=ctx.scale)
                of_queries = torch.bmm(of_scores, keys[:, :num_keys]).mul_(ctx.scale)
                of_query[0, :, block.rows] = of_queries[:, : block.rows.stop - block.rows.start]
            span.add(of_key[0], _sum_over_groups(of_keys, num_key_heads))
            span.add(of_value[0], _sum_over_groups(of_values, num_key_heads))
        return of_query, of_key, of_value, None, None


def _repeat(states: Tensor, num_heads: int) -> Tensor:
    """Give each query head its keys or values: [K, S, D] -> [H, S, D]."""
    groups = num_heads // len(states)
    return states if groups == 1 else states.repeat_interleave(groups, dim=0)


def _sum_over_groups(gradient: Tensor, num_key_heads: int) -> Tensor:
    """Add up what the query heads of each key head say: [H, S, D] -> [K, S, D]."""
    if len(gradient) == num_key_heads:
        return gradient
    return gradient.view(num_key_heads, -1, *gradient.shape[1:]).sum(1)
