"""The text of the error that a wrong configuration gives."""

from pathlib import Path

import pytest

from rlhf_cli.config.load import load_config
from rlhf_cli.errors import ConfigError

HEAD = "run_dir: runs/a\nmodel: {path: gpt2}\ndata: {train: [{path: a.jsonl}]}\n"
REWARD = "reward: [{kind: model, path: runs/rm}]\n"


def text_of(folder: Path, content: str | bytes, *overrides: str, stage: str = "sft") -> str:
    """Load `a.yaml` with this content from inside the folder, so that the text names no other path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("a.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(ConfigError) as caught:
            load_config(stage, Path("a.yaml"), overrides)
    assert caught.value.exit_code == 78
    return str(caught.value)
