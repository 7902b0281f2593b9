"""Rows in which one prompt serves several answers: the arithmetic of where everything lies.

G prompts, each with its answers behind it, stand in one row of N tokens without padding. Two prompts of 3 and 2 tokens,
the first with answers of 2 and 3 tokens, the second with one of 2:

    sizes         [3, 2, 3]                  [2, 2]
    token          p p p  a a  b b b          p p  c c
    index          0 1 2  3 4  5 6 7          8 9  10 11
    position       0 1 2  3 4  3 4 5          0 1  2 3
    predicted by   - 0 1  2 3  2 5 6          - 8  9 10

Positions go on behind the prompt in every answer, and the last token of a prompt predicts the first of each answer. A
token sees what stands before it in its prompt and its own answer, nothing of other answers and other prompts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Sizes = Sequence[Sequence[int]]
"""For each prompt its number of tokens, then that of each of its answers."""


def layout_of(sizes: Sizes) -> Tensor:
    """Write sizes as int32 [1, 1, G, 1 + K], the shape of an attention mask, which models hand on untouched.

    K is the largest number of answers to one prompt; 0 stands where a prompt has fewer.
    """
    width = max(len(group) for group in sizes)
    padded = [[*group, *[0] * (width - len(group))] for group in sizes]
    return torch.tensor(padded, dtype=torch.int32)[None, None]


def positions(sizes: Sizes) -> Tensor:
    """Number the tokens as if each answer stood alone behind its prompt -> [1, N]."""
    parts = [
        torch.arange(start, start + size)
        for prompt, *answers in sizes
        for start, size in [(0, prompt), *((prompt, answer) for answer in answers)]
    ]
    return torch.cat(parts)[None]


def answer_spans(sizes: Sizes) -> list[tuple[int, int, int]]:
    """Say for each answer where it begins and ends in the row, and which index predicts its first token.

    The predictor is -1 where the prompt is empty: nothing predicts the first token then.
    """
    spans, end = [], 0
    for prompt, *answers in sizes:
        end += prompt
        predictor = end - 1 if prompt else -1
        for answer in answers:
            spans.append((end, end + answer, predictor))
            end += answer
    return spans
