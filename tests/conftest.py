"""What tests of whole stages share."""

from pathlib import Path

import pytest
import torch
from tiny import Tiny, make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny random model and tiny data, made once."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path
