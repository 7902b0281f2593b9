"""The length limit, and pairs: what is cut, what is dropped, and that every row is counted once."""

import pytest
from tiny_tokenizers import byte_tokenizer, spelled

from rlhf_cli.data.encode import Encoder
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Prompt


def encoder(**options) -> Encoder:
    return Encoder(byte_tokenizer(), stop_ids=(), **options)


LONG = [
    Demonstration("2+2=", " four", "f:1"),
    Demonstration("2+2=", " 4", "f:2"),
    Demonstration("2+2+2+2=", " 8", "f:3"),
]


def test_truncate_cuts_behind_the_limit() -> None:
    some = encoder(max_length=7)
    one, two = some.demonstrations(LONG)
    assert list(one.input_ids) == spelled("2+2= fo")
    assert list(one.loss_mask) == [False] * 4 + [True] * 3
    assert list(two.input_ids) == [*spelled("2+2= 4"), 0]
    assert some.tally.lengths == [7, 7]
    assert +some.tally.counts == {
        "cut to the limit": 1,
        "dropped: the prompt fills the limit": 1,
        "rows that end in a trained EOS": 1,
        "trained tokens": 6,
    }


def test_drop_leaves_long_rows_out() -> None:
    some = encoder(max_length=7, over_length="drop")
    assert [row.origin for row in some.demonstrations(LONG)] == ["f:2"]
    assert some.tally.counts["dropped: over the limit"] == 2


def test_error_names_the_row_and_both_lengths() -> None:
    with pytest.raises(DataError, match="10 tokens, the limit is 7") as caught:
        encoder(max_length=7, over_length="error").demonstrations(LONG)
    assert caught.value.where == "f:1"
    with pytest.raises(DataError, match="8 tokens, the limit is 7"):
        encoder(over_length="error").prompts([Prompt(LONG[2].prompt, "f:3")], max_prompt_length=7)


def test_prompts_over_the_limit_are_counted_out() -> None:
    some = encoder()
    prompts = [Prompt("2+2=", "f:1", {"answer": 4}), Prompt("2+2+2=", "f:2"), Prompt("", "f:3")]
    (kept,) = some.prompts(prompts, max_prompt_length=4)
    assert (kept.input_ids, kept.record) == (spelled("2+2="), prompts[0])
    assert +some.tally.counts == {"dropped: prompt over the limit": 1, "dropped: empty prompt": 1}
    assert some.tally.lengths == [4]


def test_a_pair_shares_its_prompt_and_keeps_its_facts() -> None:
    (pair,) = encoder().comparisons([Comparison("2+2=", " 4", " 5", "f:1", 0.75, 2.0)])
    assert list(pair.chosen.input_ids) == [*spelled("2+2= 4"), 0]
    assert list(pair.rejected.input_ids) == [*spelled("2+2= 5"), 0]
    assert (pair.chosen.num_prompt, pair.rejected.num_prompt) == (4, 4)
    assert (pair.p_chosen, pair.margin, pair.reference_logprobs) == (0.75, 2.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("pair", "over_length", "reason"),
    [
        (
            ("2+2=", " four", " foul"),
            "truncate",
            "dropped: both completions are the same tokens (after truncation)",
        ),
        (
            ("2+2=", " 4", " 4<|end|>"),
            "truncate",
            "dropped: both completions are the same tokens (after truncation)",
        ),
        (("2+2=", " 4", " four"), "drop", "dropped: over the limit"),
        (("2+2+2+2=", " 4", " four"), "truncate", "dropped: the prompt fills the limit"),
    ],
)
def test_a_pair_is_dropped_whole_and_counted_once(pair, over_length: str, reason: str) -> None:
    some = encoder(max_length=7, over_length=over_length)
    assert some.comparisons([Comparison(*pair, "f:1")]) == []
    assert some.tally.counts[reason] == 1
    assert some.tally.counts["trained tokens"] == some.tally.counts["rows that end in a trained EOS"] == 0
