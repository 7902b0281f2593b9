"""Two threads that take turns."""

import threading
from collections.abc import Iterator

import pytest

from rlhf_cli.data.turns import in_turns


def test_results_come_in_the_order_of_the_items() -> None:
    second_done = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert second_done.wait(10)
        if number == 1:
            second_done.set()
        return number * 10

    assert list(in_turns(slow_first, range(7))) == [0, 10, 20, 30, 40, 50, 60]


def test_no_items_give_no_results() -> None:
    assert list(in_turns(str, [])) == []


def test_little_is_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_turns(str, items())
    assert [next(results), next(results)] == ["0", "1"]
    assert len(taken) <= 4
    results.close()
    assert len(taken) <= 4


def test_the_first_error_of_the_items_is_raised_behind_the_results_in_front_of_it() -> None:
    def fails(number: int) -> int:
        if number > 1:
            raise ValueError(number)
        return number

    results = in_turns(fails, range(6))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match=r"^2$"):
        next(results)
