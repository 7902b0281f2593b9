"""Trained tiny models for the tools that run models."""

from pathlib import Path

import pytest
from tiny import Tiny, run_stage


@pytest.fixture(scope="session")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of sft (with LoRA too) and train-rm; the policy answers "it is red" and the like, and stops."""
    folder = tmp_path_factory.mktemp("runs")
    changes = {"train__max_steps": 40, "train__batch_size": 12, "optim__lr": 0.01, "log__every_steps": 20}
    run_stage("sft", tiny.settings("sft", **changes), folder)
    lora = {"run_dir": "lora", "model__lora": {"rank": 4, "alpha": 8}}
    run_stage("sft", tiny.settings("sft", **changes, **lora), folder)
    changes = {"model__path": str(folder / "sft"), "train__max_steps": 6}
    run_stage("train-rm", tiny.settings("train-rm", **changes), folder)
    return folder
