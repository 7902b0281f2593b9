"""Packed rows: many answers in one row of tokens without padding, each prompt once in front of its answers.

Two prompts of 3 and 2 tokens, the first with answers of 2 and 3 tokens, the second with one of 2:

    sizes         [3, 2, 3]                  [2, 2]
    token          p p p  a a  b b b          p p  c c
    index          0 1 2  3 4  5 6 7          8 9  10 11
    position       0 1 2  3 4  3 4 5          0 1  2 3
    predicted by   - 0 1  2 3  2 5 6          - 8  9 10

Positions go on behind the prompt in every answer, and the last token of a prompt predicts the first of each answer. A
token sees what stands before it in its prompt and its own answer, nothing of other answers and other prompts. Text
that has no other answer beside it may be all prompt: sizes [[5], [7]] are two plain rows.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPE_STEP = 64
"""Sizes are rounded up to a multiple of this: a CPU compiles its bf16 products for each shape, and keeps them."""

Sizes = Sequence[Sequence[int]]
"""For each prompt its number of tokens, then that of each of its answers."""


def pack(flat_ids: Tensor, sizes: Sizes) -> dict[str, Tensor]:
    """Name what a model is called with: tokens that lie end to end [N] -> one row [1, M].

    M is N rounded up: tokens that nobody reads, a text of their own, fill the row, so that few shapes occur. The
    layout goes where a model expects an attention mask of four dimensions, which it hands on untouched.
    """
    num_fillers = -len(flat_ids) % SHAPE_STEP
    return {
        "input_ids": F.pad(flat_ids, (0, num_fillers))[None],
        "position_ids": F.pad(positions(sizes), (0, num_fillers)).to(flat_ids.device),
        "attention_mask": layout_of([*sizes, [num_fillers]] if num_fillers else sizes),
    }


def layout_of(sizes: Sizes) -> Tensor:
    """Write sizes as int32 [1, 1, G, 1 + K], G prompts with up to K answers each; 0 stands where there are fewer."""
    width = max(len(group) for group in sizes)
    padded = [[*group, *[0] * (width - len(group))] for group in sizes]
    return torch.tensor(padded, dtype=torch.int32)[None, None]


def positions(sizes: Sizes) -> Tensor:
    """Number the tokens as if each answer stood alone behind its prompt -> [1, N]."""
    return torch.cat([torch.arange(first, first + size) for first, size, _, _ in _segments(sizes)])[None]


def predicted_by(sizes: Sizes) -> Tensor:
    """Give for each token the index whose output predicts it -> [N]; -1 where nothing stands before it."""
    parts = []
    for _, size, begin, predictor in _segments(sizes):
        part = torch.arange(begin - 1, begin - 1 + size)
        part[:1] = predictor
        parts.append(part)
    return torch.cat(parts)


def _segments(sizes: Sizes) -> Iterator[tuple[int, int, int, int]]:
    """Walk prompts and answers: position of the first token, size, its index, and the index that predicts it."""
    begin = 0
    for prompt, *answers in sizes:
        yield 0, prompt, begin, -1
        begin += prompt
        predictor = begin - 1 if prompt else -1
        for answer in answers:
            yield prompt, answer, begin, predictor
            begin += answer
