"""Runs of the toy: one that nothing disturbs, to compare with."""

import os

import pytest
from toy import Straight, Toy, train


@pytest.fixture(autouse=True)
def _without_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on it, and disks take their time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """A run that nothing interrupts, and its directory; it logs means of four steps, as all runs compared to it."""
    toy = Toy()
    return toy, train(tmp_path_factory.mktemp("straight") / "run", toy).dir
