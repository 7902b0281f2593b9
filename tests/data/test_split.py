"""The split by prompt: stable, disjoint, near its fraction, never empty on one side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.data.split import prompt_key, split_by_prompt
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Message, Prompt


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text, f"f:{i}") for i, text in enumerate(texts, 1)]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_prompt_is_on_one_side_and_every_record_is_somewhere(texts: list[str], fraction: float, seed: int):
    if len(set(texts)) < 2:
        return
    records = prompts(*texts)
    train, held_out = split_by_prompt(records, fraction, seed)
    assert train
    assert held_out
    assert not {r.prompt for r in train} & {r.prompt for r in held_out}
    assert sorted(train + held_out, key=lambda r: int(r.origin[2:])) == records


def test_the_split_is_stable_and_seeded():
    records = prompts(*(f"prompt {i}" for i in range(2000)))
    train, held_out = split_by_prompt(records, 0.1, seed=0)
    assert 150 < len(held_out) < 250
    assert split_by_prompt(records, 0.1, seed=0) == (train, held_out)
    assert split_by_prompt(records, 0.1, seed=1)[1] != held_out
    more = records + prompts("one more")
    assert set(p.prompt for p in held_out) <= set(p.prompt for p in split_by_prompt(more, 0.1, seed=0)[1])
    assert [p.origin for p in split_by_prompt(records, 0.1, seed=0)[1][:3]] == ["f:10", "f:14", "f:23"]


def test_no_fraction_holds_nothing_out():
    records = prompts("a", "a")
    assert split_by_prompt(records, 0.0, seed=0) == (records, [])


def test_one_prompt_cannot_be_split():
    with pytest.raises(DataError, match="one prompt cannot be split"):
        split_by_prompt(prompts("a", " A "), 0.5, seed=0)


def test_spelling_and_form_do_not_make_another_prompt():
    user = (Message("user", "What  is\nthis?"),)
    records = [
        Prompt("what is this?", "f"),
        Prompt(user, "f"),
        Comparison(user, (Message("assistant", "x"),), (Message("assistant", "y"),), "f"),
        Demonstration((), (*user, Message("assistant", "x")), "f"),
        Demonstration("", "What is this?", "f"),
    ]
    assert {prompt_key(record) for record in records} == {"what is this?"}
    system = (Message("system", "s"), *user)
    assert prompt_key(Demonstration((), (*system, Message("assistant", "x")), "f")) == "s what is this?"
