"""The arithmetic of packed rows, on the example of its module."""

import torch

from rlhf_cli.algo.packing import layout_of, pack, positions, predicted_by

SIZES = [[3, 2, 3], [2, 2]]


def test_positions_start_again_behind_the_prompt() -> None:
    assert positions(SIZES).tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3]]


def test_the_last_token_of_a_prompt_predicts_every_first_token() -> None:
    assert predicted_by(SIZES).tolist() == [-1, 0, 1, 2, 3, 2, 5, 6, -1, 8, 9, 10]


def test_an_empty_prompt_predicts_nothing() -> None:
    assert predicted_by([[1, 1], [0, 2, 1]]).tolist() == [-1, 0, -1, 2, -1]
    assert positions([[1, 1], [0, 2, 1]]).tolist() == [[0, 1, 0, 1, 0]]


def test_rows_that_are_all_prompt() -> None:
    assert predicted_by([[3], [2]]).tolist() == [-1, 0, 1, -1, 3]
    assert positions([[3], [2]]).tolist() == [[0, 1, 2, 0, 1]]


def test_the_layout_has_the_shape_of_a_mask() -> None:
    layout = layout_of(SIZES)
    assert layout.tolist() == [[[[3, 2, 3], [2, 2, 0]]]]
    assert str(layout.dtype) == "torch.int32"


def test_a_model_gets_tokens_positions_and_the_layout_in_one_of_few_sizes() -> None:
    inputs = pack(torch.tensor([7, 8, 9]), [[1, 1, 1]])
    assert {name: tensor.tolist() for name, tensor in inputs.items()} == {
        "input_ids": [[7, 8, 9] + [0] * 61],
        "position_ids": [[0, 1, 1] + [0] * 61],
        "attention_mask": [[[[1, 1, 1], [61, 0, 0]]]],
    }


def test_a_row_of_full_size_is_not_filled() -> None:
    inputs = pack(torch.arange(128), [[100, 28]])
    assert inputs["input_ids"].tolist() == [list(range(128))]
    assert inputs["attention_mask"].tolist() == [[[[100, 28]]]]
