"""The walk over rows: its order, its length, and that it goes on where it stopped."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.config.sections import Train
from rlhf_cli.data.loader import WHOLE_STEP, RowSource, epoch_order
from rlhf_cli.run.ranks import Place, Ranks


def walk(
    num_rows: int = 5, *, seed: int = 0, micro_tokens: int = 10**6, ranks: Ranks | None = None, **train
) -> RowSource:
    """Make a source over rows 0..num_rows-1, each of length 10, whose micro-batches are lists of rows."""
    return RowSource(
        range(num_rows),
        length=lambda _: 10,
        collate=list,
        train=Train(**{"batch_size": 2} | train),
        micro_tokens=micro_tokens,
        seed=seed,
        ranks=ranks,
    )


def steps(source: RowSource) -> list[list[list[int]]]:
    return [list(step) for step in source]


def flat(nested: list[list[list[int]]]) -> list[int]:
    return [row for step in nested for part in step for row in part]


@given(num_rows=st.integers(1, 50), seed=st.integers(0, 2**40), epoch=st.integers(0, 9))
def test_an_epoch_is_a_permutation_and_pure(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed, epoch)
    assert sorted(order) == list(range(num_rows))
    assert epoch_order(num_rows, seed, epoch) == order


def test_the_order_is_that_of_every_machine() -> None:
    assert epoch_order(8, 0, 0) == [4, 0, 7, 3, 2, 5, 1, 6]
    orders = {tuple(epoch_order(20, seed, epoch)) for seed, epoch in itertools.product(range(3), range(3))}
    assert len(orders) == 9


def test_the_last_step_of_an_epoch_holds_the_rest() -> None:
    source = walk(5, epochs=2)
    assert (source.steps_per_epoch, source.num_steps) == (3, 6)
    taken = steps(source)
    assert [len(flat([step])) for step in taken] == [2, 2, 1] * 2
    assert flat(taken[:3]) == epoch_order(5, 0, 0)
    assert flat(taken[3:]) == epoch_order(5, 0, 1)
    assert source.facts() == {"epoch": 2.0}


@pytest.mark.parametrize(("max_steps", "sizes"), [(2, [2, 2]), (5, [2, 2, 1, 2, 2])])
def test_max_steps_decides_alone(max_steps: int, sizes: list[int]) -> None:
    source = walk(5, max_steps=max_steps, epochs=1)
    assert source.num_steps == max_steps
    assert [len(flat([step])) for step in steps(source)] == sizes


def test_a_batch_larger_than_the_data_is_one_step() -> None:
    assert [sorted(flat([step])) for step in steps(walk(3, batch_size=64))] == [[0, 1, 2]]


def test_steps_are_cut_by_the_token_budget() -> None:
    (step,) = steps(walk(5, batch_size=5, micro_tokens=20))
    assert [len(part) for part in step] == [2, 2, 1]


def test_what_must_stay_whole_is_cut_into_steps_alone() -> None:
    source = walk(5, batch_size=2, micro_tokens=WHOLE_STEP)
    assert [len(step) for step in steps(source)] == [1, 1, 1]
    assert [batch for batch, _ in source.turns(range(5))] == [[0, 1], [2, 3], [4]]


def test_processes_share_a_step_and_none_has_less_to_do_than_another() -> None:
    shares = []
    for index in range(2):
        source = walk(5, batch_size=5, micro_tokens=20, ranks=Ranks(Place(index, 2)))
        (step,) = steps(source)
        shares.append(([sorted(part) for part in step], source.num_idle))
    (first, first_idle), (second, second_idle) = shares
    assert (first_idle, second_idle) == (0, 1)
    assert len(first) == len(second)
    assert sorted(row for part in first + second[:-1] for row in part) == [0, 1, 2, 3, 4]
    assert second[-1] == first[0]


@given(
    num_rows=st.integers(1, 12),
    batch_size=st.integers(1, 5),
    num_steps=st.integers(1, 12),
    cut=st.integers(0, 12),
)
def test_a_resumed_walk_is_the_rest_of_the_whole(
    num_rows: int, batch_size: int, num_steps: int, cut: int
) -> None:
    options = {"batch_size": batch_size, "max_steps": num_steps, "seed": 3}
    whole = steps(walk(num_rows, **options))
    interrupted = walk(num_rows, **options)
    begun = list(itertools.islice(interrupted, min(cut, num_steps)))
    resumed = walk(num_rows, **options)
    resumed.load_state_dict(interrupted.state_dict())
    assert begun + steps(resumed) == whole
