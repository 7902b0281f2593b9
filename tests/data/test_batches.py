"""Padding worked by hand, and the cut into micro-batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.data.batches import (
    Layout,
    collate,
    collate_packed,
    collate_plain,
    pack_by_tokens,
    split_by_tokens,
)
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


ONE = EncodedPair(
    row(1, 2, 3, 10, 11, num_prompt=3, origin="f:1"),
    row(1, 2, 3, 20, 21, 22, num_prompt=3, origin="f:2"),
    1.0, 0.5, (-1.0, -2.0),
)  # fmt: skip
OTHER = EncodedPair(row(5, 6, num_prompt=1), row(5, 7, 8, 9, num_prompt=1), 0.25, 0.0, (-3.0, -4.0))
PACKED, PLAIN = Layout(PAD, packed=True), Layout(PAD, packed=False)


def test_a_packed_pair_has_its_prompt_once() -> None:
    answers = PACKED.collate_pairs([ONE, OTHER]).answers
    fillers = [0] * (64 - 13)
    assert answers.inputs["input_ids"].tolist() == [[1, 2, 3, 10, 11, 20, 21, 22, 5, 6, 7, 8, 9, *fillers]]
    assert answers.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 1, 2, 3, *fillers]]
    assert answers.inputs["attention_mask"].tolist() == [[[[3, 2, 3], [1, 1, 3], [51, 0, 0]]]]
    assert answers.num_read == 13
    assert answers.predictor_index.tolist() == [2, 3, 2, 5, 6, 8, 8, 10, 11]
    assert answers.last_index.tolist() == [4, 7, 9, 12]
    assert set(answers.inputs) == {"input_ids", "attention_mask", "position_ids"}


def test_plain_pairs_have_a_row_for_each_answer() -> None:
    answers = PLAIN.collate_pairs([ONE, OTHER]).answers
    assert answers.inputs["input_ids"].tolist() == [
        [1, 2, 3, 10, 11, PAD], [1, 2, 3, 20, 21, 22], [5, 6, PAD, PAD, PAD, PAD], [5, 7, 8, 9, PAD, PAD],
    ]  # fmt: skip
    assert answers.inputs["attention_mask"].sum(1).tolist() == [5, 6, 2, 4]
    assert answers.predictor_index.tolist() == [2, 3, 8, 9, 10, 12, 18, 19, 20]
    assert answers.last_index.tolist() == [4, 11, 13, 21]
    assert set(answers.inputs) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("layout", [PACKED, PLAIN], ids=["packed", "plain"])
def test_what_is_read_is_the_same_in_both_layouts(layout: Layout) -> None:
    batch = layout.collate_pairs([ONE, OTHER])
    assert batch.answers.target_ids.tolist() == [10, 11, 20, 21, 22, 6, 7, 8, 9]
    assert batch.answers.answer_index.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert batch.answers.num_tokens.tolist() == [2, 3, 1, 3]
    assert batch.answers.origins == ("f:1", "f:2", "f:1", "f:1")
    assert batch.p_chosen.tolist() == [1.0, 0.25]
    assert batch.margin.tolist() == [0.5, 0.0]
    assert batch.reference_logprobs.tolist() == [[-1.0, -2.0], [-3.0, -4.0]]


@pytest.mark.parametrize("layout", [PACKED, PLAIN], ids=["packed", "plain"])
def test_batches_move_but_for_the_packed_layout(layout: Layout) -> None:
    moved = layout.collate_pairs([ONE]).to(torch.device("meta"))
    answers = moved.answers
    tensors = (
        *(moved.p_chosen, moved.margin, moved.reference_logprobs, answers.predictor_index),
        *(answers.inputs["input_ids"], answers.target_ids, answers.answer_index, answers.last_index),
    )
    assert {t.device.type for t in tensors} == {"meta"}
    assert answers.inputs["attention_mask"].device.type == ("cpu" if layout.packed else "meta")


def test_prompts_that_differ_are_not_shared() -> None:
    answers = collate_packed([row(1, 2, 10, num_prompt=2), row(1, 3, 11, num_prompt=2)])
    assert answers.inputs["input_ids"][0, :6].tolist() == [1, 2, 10, 1, 3, 11]
    assert answers.inputs["attention_mask"].tolist() == [[[[2, 1], [2, 1], [58, 0]]]]
    assert answers.predictor_index.tolist() == [1, 4]


def test_nothing_predicts_a_first_token_without_a_prompt() -> None:
    answers = [row(10, 11, num_prompt=0), row(20, 21, num_prompt=0)]
    for batch in (collate_packed(answers), collate_plain(answers, PAD)):
        assert batch.target_ids.tolist() == [11, 21]
        assert batch.predictor_index.tolist() == [0, 2]
        assert batch.last_index.tolist() == [1, 3]


def test_lengths_are_those_of_the_layout() -> None:
    assert [PACKED.length_of_pair(pair) for pair in (ONE, OTHER)] == [8, 5]
    assert [PLAIN.length_of_pair(pair) for pair in (ONE, OTHER)] == [12, 8]
    assert PACKED.collate_pairs([ONE, OTHER]).answers.num_read == 8 + 5
    assert [len(part) for part in PACKED.cut([ONE, OTHER], PACKED.length_of_pair, 13)] == [2]
    assert [len(part) for part in PLAIN.cut([ONE, OTHER], PLAIN.length_of_pair, 20)] == [1, 1]


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


def test_packing_fills_evenly() -> None:
    assert pack_by_tokens([4, 3, 3, 2], int, 8) == [[4, 2], [3, 3]]
    assert pack_by_tokens([9, 1, 1], int, 8) == [[9], [1, 1]]
    assert pack_by_tokens([3, 3, 3], int, 5) == [[3], [3], [3]]
    assert pack_by_tokens([4, 3, 3, 2], int, 100, 2) == [[4, 2], [3, 3]]  # one for each process
    assert pack_by_tokens([4, 3, 3, 2], int, 5, 2) == [[4], [3], [3], [2]]
    assert pack_by_tokens([4], int, 100, 2) == [[4]]
    assert pack_by_tokens([], int, 8) == []


@given(lengths=st.lists(st.integers(1, 40), max_size=40), budget=st.integers(1, 100))
def test_every_item_is_packed_once_within_the_budget(lengths: list[int], budget: int) -> None:
    items = list(enumerate(lengths))
    parts = pack_by_tokens(items, lambda item: item[1], budget)
    assert sorted(item for part in parts for item in part) == items
    for part in parts:
        assert part
        assert len(part) == 1 or sum(length for _, length in part) <= budget
