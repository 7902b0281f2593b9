"""The control: checkpoints as most trainers write them, in place and unverified. The harness must catch it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_cli.run.faults import fault_point
from rlhf_cli.training import saving
from rlhf_cli.training.checkpoint import Checkpoint


class NaiveStore:
    """Writes files under their final names; the highest directory wins, whole or not."""

    def __init__(self, root: Path, _run_id: str, *, keep: int, warn: Callable[[str], None]) -> None:
        self.root = root
        self._keep = keep
        root.mkdir(parents=True, exist_ok=True)

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, object]
    ) -> Path:
        """Write one file after the other."""
        folder = self.root / f"step-{step:06d}"
        folder.mkdir(exist_ok=True)
        for name, group in tensors.items():
            fault_point("checkpoint.write", folder / name)
            save_file(
                {key: value.contiguous() for key, value in group.items()}, folder / f"{name}.safetensors"
            )
        fault_point("checkpoint.write", folder / "state.json")
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for old in self._oldest_first()[: -self._keep]:
            shutil.rmtree(old)
        return folder

    def load_latest(self) -> Checkpoint | None:
        """Load the highest directory."""
        found = self._oldest_first()
        if not found:
            return None
        tensors = {path.stem: load_file(path) for path in found[-1].glob("*.safetensors")}
        state = json.loads((found[-1] / "state.json").read_bytes())
        return Checkpoint(int(found[-1].name.removeprefix("step-")), tensors, state)

    def _oldest_first(self) -> list[Path]:
        return sorted(self.root.glob("step-*"))


def use_naive_store() -> None:
    """Have this process write and read checkpoints the naive way."""
    vars(saving)["CheckpointStore"] = NaiveStore
