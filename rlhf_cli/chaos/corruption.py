"""Damage published checkpoints in every way disks, copies and people do, and ask the store to load them."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf_cli.chaos.evidence import broken, published
from rlhf_cli.errors import CheckpointError
from rlhf_cli.run.seal import SEAL, seal
from rlhf_cli.training.checkpoint import CheckpointStore

Damage = Callable[[Path, Path, random.Random], None]
"""damage(newest checkpoint, the one before, chance)"""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def flip_bit(newest: Path, _: Path, chance: random.Random) -> None:
    """Flip one bit of one file."""
    path = chance.choice(_files(newest))
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def truncate(newest: Path, _: Path, chance: random.Random) -> None:
    """Cut one file short."""
    path = chance.choice(_files(newest))
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def zero_fill(newest: Path, _: Path, chance: random.Random) -> None:
    """Leave zeros where one file was, as a file system does that lost its data."""
    path = chance.choice(_files(newest))
    path.write_bytes(bytes(path.stat().st_size))


def zero_range(newest: Path, _: Path, chance: random.Random) -> None:
    """Leave zeros in a part of one file; cut its last byte off where that changes nothing."""
    path = chance.choice(_files(newest))
    content = path.read_bytes()
    start = chance.randrange(len(content))
    length = min(chance.randint(1, 512), len(content) - start)
    zeroed = content[:start] + bytes(length) + content[start + length :]
    path.write_bytes(zeroed if zeroed != content else content[:-1])


def lose_file(newest: Path, _: Path, chance: random.Random) -> None:
    """Remove one file."""
    chance.choice(_files(newest)).unlink()


def lose_all(newest: Path, _: Path, chance: random.Random) -> None:
    """Leave an empty directory."""
    for path in _files(newest):
        path.unlink()


def add_file(newest: Path, _: Path, chance: random.Random) -> None:
    """Put a file there that nobody wrote."""
    shutil.copy2(chance.choice(_files(newest)), newest / "extra.safetensors")


def swap_files(newest: Path, _: Path, chance: random.Random) -> None:
    """Exchange two files."""
    one, other = chance.sample(_files(newest), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def mix_steps(newest: Path, older: Path, chance: random.Random) -> None:
    """Take one file from the checkpoint before, where it differs."""
    names = [path.name for path in _files(newest)
             if (older / path.name).exists() and (older / path.name).read_bytes() != path.read_bytes()]  # fmt: skip
    name = chance.choice(names)
    shutil.copy2(older / name, newest / name)


def rename_older(newest: Path, older: Path, chance: random.Random) -> None:
    """Put the whole older checkpoint under the newer name."""
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


def take_from_another_run(newest: Path, _: Path, chance: random.Random) -> None:
    """Put a whole checkpoint of another run there."""
    manifest = json.loads((newest / SEAL).read_text())
    (newest / SEAL).unlink()
    seal(newest, {"format": manifest["format"], "run": "another", "step": manifest["step"]})


DAMAGES: tuple[Damage, ...] = (
    flip_bit,
    truncate,
    zero_fill,
    zero_range,
    lose_file,
    lose_all,
    add_file,
    swap_files,
    mix_steps,
    rename_older,
    take_from_another_run,
)


def corrupt(
    run_dir: Path,
    scratch: Path,
    num_trials: int,
    chance: random.Random,
    damages: Sequence[Damage] = DAMAGES,
) -> Counter[str]:
    """Damage copies of a run's checkpoints; count outcomes by kind: "flip_bit: fell back" is the good one.

    The store must refuse the damaged newest checkpoint, put it aside, and load the one before.
    """
    counts: Counter[str] = Counter()
    run_id = json.loads((run_dir / "manifest.json").read_text())["id"]
    for trial in range(num_trials):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(run_dir / "checkpoints", scratch)
        older, newest = published(scratch.parent)[-2:]
        damage = damages[trial % len(damages)]
        damage(newest, older, chance)
        store = CheckpointStore(scratch, run_id, keep=2, warn=lambda _: None)
        counts[f"{damage.__name__}: {_outcome(store, newest, older)}"] += 1
    return counts


FELL_BACK = "fell back"


def _outcome(store: CheckpointStore, newest: Path, older: Path) -> str:
    try:
        loaded = store.load_latest()
    except CheckpointError:
        return "refused the good one too"
    if loaded is None:
        return "started afresh"
    if loaded.step == int(newest.name.removeprefix("step-")):
        return "LOADED DAMAGED"
    aside = (store.root / "quarantine" / newest.name).exists()
    is_older = loaded.step == int(older.name.removeprefix("step-")) and not broken([older])
    return FELL_BACK if aside and is_older else "lost the old one"
