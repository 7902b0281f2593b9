"""The arithmetic of packed rows, on the example of its module."""

from rlhf_cli.algo.packing import answer_spans, layout_of, positions

SIZES = [[3, 2, 3], [2, 2]]


def test_positions_start_again_behind_the_prompt() -> None:
    assert positions(SIZES).tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3]]


def test_the_last_token_of_a_prompt_predicts_every_first_token() -> None:
    assert answer_spans(SIZES) == [(3, 5, 2), (5, 8, 2), (10, 12, 9)]


def test_an_empty_prompt_predicts_nothing() -> None:
    assert answer_spans([[1, 1], [0, 2, 1]]) == [(1, 2, 0), (2, 4, -1), (4, 5, -1)]
    assert positions([[1, 1], [0, 2, 1]]).tolist() == [[0, 1, 0, 1, 0]]


def test_the_layout_has_the_shape_of_a_mask() -> None:
    layout = layout_of(SIZES)
    assert layout.tolist() == [[[[3, 2, 3], [2, 2, 0]]]]
    assert str(layout.dtype) == "torch.int32"
