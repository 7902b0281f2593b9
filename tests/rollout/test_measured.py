"""How sampled answers are put into micro-batches."""

import pytest
import torch

from rlhf_cli.data.batches import Layout
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.rollout.measured import Cutter, to_columns

# Prompts of 3, 3 (the same) and 2 tokens; answers of 2, 4 and 1.
ROWS = [
    EncodedText([*prompt, *answer], [False] * len(prompt) + [True] * len(answer), len(prompt), "sampled")
    for prompt, answer in [([7, 8, 9], [4, 5]), ([7, 8, 9], [6, 6, 6, 6]), ([7, 8], [9])]
]


def cutter(micro_tokens: int, *, packed: bool = True) -> Cutter:
    return Cutter(Layout(0, packed=packed), micro_tokens, torch.device("cpu"))


@pytest.mark.parametrize(
    ("micro_tokens", "packed", "expected"),
    [
        (12, True, [[0, 1, 2]]),  # 3 + 2 + 4, and 3
        (9, True, [[0, 1], [2]]),
        (8, True, [[0, 2], [1]]),  # the two answers do not fit together: 5, 7 and 3 tokens
        (12, False, [[0, 2], [1]]),  # 7 tokens alone; twice 5, padded
    ],
)
def test_answers_to_one_prompt_stay_together(micro_tokens: int, packed: bool, expected: list[list[int]]):
    parts = cutter(micro_tokens, packed=packed).cut(ROWS, [2, 0, 1])
    assert sorted(sorted(part) for part in parts) == expected


def test_a_shared_prompt_is_there_once():
    answers = cutter(12).collate(ROWS)
    assert answers.inputs["input_ids"][0, :12].tolist() == [7, 8, 9, 4, 5, 6, 6, 6, 6, 7, 8, 9]
    assert answers.predictor_index.tolist() == [2, 3, 2, 5, 6, 7, 10]
    assert answers.target_ids.tolist() == [4, 5, 6, 6, 6, 6, 9]


def test_flat_values_go_to_their_columns():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    flat = torch.arange(1.0, 7.0, requires_grad=True)
    columns = to_columns(flat, mask)
    assert columns.tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [4.0, 5.0, 6.0]]
    (columns * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.tolist() == [1.0, 2.0, 1.0, 1.0, 2.0, 3.0]
