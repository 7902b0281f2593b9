"""Damage to checkpoints: every kind is noticed, and the trials see where none was done."""

import json
import random
from pathlib import Path

import pytest
import torch

from rlhf_cli.chaos.corruption import DAMAGES, FELL_BACK, corrupt
from rlhf_cli.training.checkpoint import CheckpointStore


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with two checkpoints."""
    store = CheckpointStore(tmp_path / "checkpoints", "this run", keep=2, warn=lambda _: None)
    for step in (10, 20):
        weights = torch.randn(32, 8, generator=torch.Generator().manual_seed(step))
        store.save(step, {"model": {"w": weights}, "optimizer": {"w": weights**2}}, {"step": step})
    (tmp_path / "manifest.json").write_text(json.dumps({"id": "this run"}))
    return tmp_path


def test_every_kind_of_damage_is_noticed_and_the_older_checkpoint_used(run_dir: Path):
    counts = corrupt(run_dir, run_dir / "copy" / "checkpoints", 5 * len(DAMAGES), random.Random(1))
    assert counts == {f"{damage.__name__}: {FELL_BACK}": 5 for damage in DAMAGES}


def test_no_damage_counts_as_not_noticed(run_dir: Path):
    def nothing(_newest: Path, _older: Path, _chance: random.Random) -> None: ...

    counts = corrupt(run_dir, run_dir / "copy" / "checkpoints", 1, random.Random(0), [nothing])
    assert counts == {"nothing: LOADED DAMAGED": 1}


def test_a_damaged_older_checkpoint_is_no_way_back(run_dir: Path):
    def both(newest: Path, older: Path, _chance: random.Random) -> None:
        for folder in (newest, older):
            (folder / "state.json").unlink()

    counts = corrupt(run_dir, run_dir / "copy" / "checkpoints", 1, random.Random(0), [both])
    assert counts == {"both: refused the good one too": 1}
