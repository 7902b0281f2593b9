"""Attention of packed rows by the matrix products of a CPU, which are faster than its attention kernels.

Only queries, keys and values are kept for the backward pass; attention weights, as many as the square of a row's
length for each head, are computed once more there (Dao et al. 2022, algorithm 4, without its tiles of keys).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
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
        """Take the keys or values [H, S, D] of what is seen."""
        return _joined(states, [self.prompt, self.own] if self.num_before else [self.own])

    def put(self, total: Tensor, part: Tensor) -> None:
        """Put what `take` made of the gradient [H, S, D] to where it came from; the prompt has some already."""
        num_own = self.own.stop - self.own.start
        total[:, self.own] = part[:, self.num_before : self.num_before + num_own]
        if self.num_before:
            total[:, self.prompt] += part[:, : self.num_before]


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of a span at once: `rows` of the packed row, which see no more than the first `num_keys` keys."""

    rows: slice
    num_keys: int
    num_before: int

    @property
    def num_queries(self) -> int:
        size: int = self.rows.stop - self.rows.start
        return size

    def weights(self, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
        """Give the attention weights [H, L, S]."""
        bias = _bias(self.num_before, queries.shape[1], self.num_keys, queries.dtype)
        return torch.baddbmm(bias, queries, keys[:, : self.num_keys].mT, alpha=scale).softmax(-1)


def _joined(states: Tensor, runs: Sequence[slice]) -> Tensor:
    """Copy runs of tokens [H, N, D] one behind the other, with zeros behind them up to a size that occurs often.

    What fills the size lies behind the last query, where no other sees it.
    """
    num_heads, _, width = states.shape
    size = sum(run.stop - run.start for run in runs)
    joined = states.new_empty(num_heads, size + -size % SHAPE_STEP, width)
    begin = 0
    for run in runs:
        end = begin + run.stop - run.start
        joined[:, begin:end] = states[:, run]
        begin = end
    joined[:, begin:] = 0
    return joined


def _bias(num_before: int, num_queries: int, num_keys: int, dtype: torch.dtype) -> Tensor:
    """Give what hides later keys from each query [L, S]: minus infinity behind the `num_before` and its own."""
    most_before = 1 << num_before.bit_length()
    begin = most_before - num_before
    return _wide_bias(most_before, dtype)[:num_queries, begin : begin + num_keys]


@lru_cache(maxsize=8)
def _wide_bias(most_before: int, dtype: torch.dtype) -> Tensor:
    shape = _QUERIES_AT_ONCE, most_before + _QUERIES_AT_ONCE + SHAPE_STEP
    return torch.full(shape, -torch.inf, dtype=dtype).triu(most_before + 1)


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
    """Walk the queries of a span from the last ones, which see all of its keys, to the first."""
    for begin in reversed(range(span.own.start, span.own.stop, _QUERIES_AT_ONCE)):
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
        attended = value.new_empty(1, num_tokens, num_heads, value.shape[-1])
        by_head = attended[0].transpose(0, 1)
        for span in _spans(layout):
            keys, values = (_repeat(span.take(states[0]), num_heads) for states in (key, value))
            for block in _blocks(span):
                weights = block.weights(_joined(query[0], [block.rows]), keys, scale)
                result = torch.bmm(weights, values[:, : block.num_keys])
                by_head[:, block.rows] = result[:, : block.num_queries]
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scale = layout, scale
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value = ctx.saved_tensors
        num_heads, num_key_heads = query.shape[1], key.shape[1]
        gradient = gradients[0][0].transpose(0, 1)
        of_query, of_key, of_value = (torch.empty_like(states) for states in (query, key, value))
        for span in _spans(ctx.layout):
            keys, values = (_repeat(span.take(states[0]), num_heads) for states in (key, value))
            of_keys, of_values = torch.empty_like(keys), torch.empty_like(values)
            for number, block in enumerate(_blocks(span)):
                share = float(number > 0)  # of what is there; the first block fills it
                queries, results = (_joined(states, [block.rows]) for states in (query[0], gradient))
                weights = block.weights(queries, keys, ctx.scale)
                of_values[:, : block.num_keys].baddbmm_(weights.mT, results, beta=share)
                of_weights = torch.bmm(results, values[:, : block.num_keys].mT)
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_keys[:, : block.num_keys].baddbmm_(of_scores.mT, queries, beta=share)
                of_queries = torch.bmm(of_scores, keys[:, : block.num_keys])
                of_query[0, :, block.rows] = of_queries[:, : block.num_queries]
            span.put(of_key[0], _sum_over_groups(of_keys, num_key_heads))
            span.put(of_value[0], _sum_over_groups(of_values, num_key_heads))
        return of_query.mul_(ctx.scale), of_key.mul_(ctx.scale), of_value, None, None


def _repeat(states: Tensor, num_heads: int) -> Tensor:
    """Give each query head its keys or values: [K, S, D] -> [H, S, D]."""
    groups = num_heads // len(states)
    return states if groups == 1 else states.repeat_interleave(groups, dim=0)


def _sum_over_groups(gradient: Tensor, num_key_heads: int) -> Tensor:
    """Add up what the query heads of each key head say: [H, S, D] -> [K, S, D]."""
    if len(gradient) == num_key_heads:
        return gradient
    return gradient.view(num_key_heads, -1, *gradient.shape[1:]).sum(1)
