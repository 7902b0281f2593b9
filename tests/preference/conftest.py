"""A small store for every test here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_store import MakeStore, fill

from rlhf_cli.preference.store import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    opened = []

    def make(answers: int | list[tuple[str, str]] = 3, *, dialog: bool = False) -> Store:
        """Store pairs; by default response 1 says "one i" and response 2 "two i". Odd pairs show response 2 first."""
        store = Store(tmp_path / "collect.db")
        opened.append(store)
        many = (
            answers
            if isinstance(answers, list)
            else [(f"one {i}", f"two {i}") for i in range(1, answers + 1)]
        )
        fill(store, many, dialog=dialog)
        return store

    yield make
    for store in opened:
        store.__exit__()
