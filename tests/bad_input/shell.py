"""A stage run through the whole command line in this process, on a configuration that a test spoils."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import Tiny

from rlhf_cli.cli import main

DOCUMENTED = {0, 2, 65, 66, 69, 71, 73, 75, 76, 78, 130}


@dataclass(frozen=True)
class Shell:
    """A working directory, the tiny model, and what is written to the terminal."""

    folder: Path
    tiny: Tiny
    capture: pytest.CaptureFixture[str]

    def rlhf(self, *arguments: str) -> tuple[int, str]:
        """Run a command; give its exit code and what it said. Never a traceback, never an undocumented code."""
        code = main(list(arguments))
        said = "".join(self.capture.readouterr())
        assert code in DOCUMENTED, said
        assert "Traceback" not in said
        assert "internal:" not in said
        return code, said

    def run(self, stage: str, *options: str, **changes: object) -> tuple[int, str]:
        """Run a stage with its small configuration changed, as `Tiny.settings` does."""
        config = self.folder / "config.yaml"
        config.write_text(json.dumps(self.tiny.settings(stage, **changes)), encoding="utf-8")
        return self.rlhf(stage, "--config", "config.yaml", *options)

    def read(
        self, stage: str, content: bytes | str, name: str = "rows.jsonl", **changes: object
    ) -> tuple[int, str]:
        """Plan a stage on a file with this content: everything is read and encoded, nothing is trained."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.run(stage, "--dry-run", data__train=[{"path": name}], **changes)


def json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
