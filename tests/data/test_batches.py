"""Padding worked by hand, and the cut into micro-batches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.data.batches import collate, collate_pairs, pair_length, split_by_tokens
from rlhf_cli.data.encode import EncodedPair, EncodedText

PAD = 9


def row(*ids: int, num_prompt: int, origin: str = "f:1") -> EncodedText:
    return EncodedText(list(ids), [t >= num_prompt for t in range(len(ids))], num_prompt, origin)


def test_rows_are_padded_on_the_right() -> None:
    batch = collate([row(1, 2, 3, num_prompt=1, origin="f:1"), row(4, 5, num_prompt=1, origin="f:2")], PAD)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.loss_mask.tolist() == [[False, True, True], [False, True, False]]
    assert batch.origins == ("f:1", "f:2")
    assert (batch.input_ids.dtype, batch.loss_mask.dtype) == (torch.long, torch.bool)


def test_a_pad_id_inside_a_row_is_attended_to() -> None:
    assert collate([row(1, PAD, num_prompt=1)], PAD).attention_mask.tolist() == [[1, 1]]


def test_chosen_rows_stand_above_rejected_ones() -> None:
    pairs = [
        EncodedPair(row(1, 2, num_prompt=1), row(1, 3, 4, num_prompt=1), 1.0, 0.5, (-1.0, -2.0)),
        EncodedPair(row(5, 6, num_prompt=1), row(5, 7, num_prompt=1), 0.25, 0.0, (-3.0, -4.0)),
    ]
    batch = collate_pairs(pairs, PAD)
    assert batch.rows.input_ids.tolist() == [[1, 2, PAD], [5, 6, PAD], [1, 3, 4], [5, 7, PAD]]
    assert batch.p_chosen.tolist() == [1.0, 0.25]
    assert batch.margin.tolist() == [0.5, 0.0]
    assert batch.reference_logprobs.tolist() == [-1.0, -3.0, -2.0, -4.0]
    assert [pair_length(pair) for pair in pairs] == [3, 2]
    moved = batch.to(torch.device("meta"))
    tensors = (
        moved.rows.input_ids,
        moved.rows.attention_mask,
        moved.rows.loss_mask,
        moved.p_chosen,
        moved.margin,
    )
    assert {t.device.type for t in (*tensors, moved.reference_logprobs)} == {"meta"}


def test_the_cut_by_hand() -> None:
    assert split_by_tokens([1, 5, 2, 4, 2], int, 8) == [[5], [4, 2], [2, 1]]
    assert split_by_tokens([9, 1], int, 8) == [[9], [1]]
    assert split_by_tokens([], int, 8) == []


@given(lengths=st.lists(st.integers(1, 40), max_size=40), budget=st.integers(1, 100))
def test_every_item_once_within_the_budget(lengths: list[int], budget: int) -> None:
    items = list(enumerate(lengths))
    parts = split_by_tokens(items, lambda item: item[1], budget)
    assert sorted(item for part in parts for item in part) == items
    for part in parts:
        assert len(part) == 1 or len(part) * max(length for _, length in part) <= budget
