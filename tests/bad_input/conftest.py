from pathlib import Path

import pytest
from shell import Shell
from tiny import Tiny


@pytest.fixture
def shell(work: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(work, tiny, capsys)
