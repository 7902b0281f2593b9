"""Damage checkpoints in every way and count what is noticed.

    .venv/bin/python -m scripts.durability.corrupt --trials 1000

Each trial damages the newest of three checkpoints in one random way. It passes when loading sets that checkpoint
aside and gives the one before it, bit for bit.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from rlhf_cli.training.checkpoint import CheckpointStore

NEWEST, OLDER, OLDEST = 30, 20, 10
Damage = Callable[[Path, Path, random.Random], None]


def flip_a_bit(newest: Path, older: Path, chance: random.Random) -> None:
    file = _any_file(newest, chance)
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def truncate(newest: Path, older: Path, chance: random.Random) -> None:
    file = _any_file(newest, chance)
    os.truncate(file, chance.randrange(file.stat().st_size))


def zero_a_range(newest: Path, older: Path, chance: random.Random) -> None:
    """Do what a file system does that allocated blocks and lost what was to be in them."""
    file = _any_file(newest, chance)
    content = file.read_bytes()
    start = chance.randrange(len(content))
    length = min(1 + chance.randrange(512), len(content) - start)
    changed = content[:start] + bytes(length) + content[start + length :]
    file.write_bytes(changed if changed != content else content[:-1])


def delete(newest: Path, older: Path, chance: random.Random) -> None:
    _any_file(newest, chance).unlink()


def add(newest: Path, older: Path, chance: random.Random) -> None:
    shutil.copy(_any_file(newest, chance), newest / "extra.safetensors")


def swap_two(newest: Path, older: Path, chance: random.Random) -> None:
    one, two = chance.sample(sorted(newest.iterdir()), 2)
    content = one.read_bytes()
    two.replace(one)
    two.write_bytes(content)


def mix_steps(newest: Path, older: Path, chance: random.Random) -> None:
    """Put a file of the older checkpoint, the manifest sometimes, into the newest."""
    name = _any_file(newest, chance).name
    shutil.copy(older / name, newest / name)


def rename_older(newest: Path, older: Path, chance: random.Random) -> None:
    """Put the whole older checkpoint in place of the newest."""
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


def take_from_another_run(newest: Path, older: Path, chance: random.Random) -> None:
    shutil.rmtree(newest)
    with tempfile.TemporaryDirectory() as folder:
        _store(Path(folder), "another run").save(NEWEST, tensors_of(NEWEST), {})
        shutil.copytree(Path(folder) / newest.name, newest)


DAMAGES: list[Damage] = [
    flip_a_bit, truncate, zero_a_range, delete, add, swap_two, mix_steps, rename_older, take_from_another_run,
]  # fmt: skip


def _any_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(folder.iterdir()))


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Make tensors that differ from step to step, such as a checkpoint of training holds."""
    generator = torch.Generator().manual_seed(step)
    groups = ("model", "optimizer")
    tensors = {name: {"w": torch.randn(32, 8, generator=generator)} for name in groups}
    return tensors | {"rng": {"cpu": torch.randint(0, 256, (64,), dtype=torch.uint8, generator=generator)}}


def _store(root: Path, run_id: str, warnings: list[str] | None = None) -> CheckpointStore:
    return CheckpointStore(root, run_id, keep=3, warn=(warnings if warnings is not None else []).append)


def write_pristine(root: Path) -> None:
    """Save three checkpoints under `root`."""
    for step in (OLDEST, OLDER, NEWEST):
        _store(root, "this run").save(step, tensors_of(step), {"step": step})


def survives(pristine: Path, damage: Damage, chance: random.Random) -> bool:
    """Damage a copy; say whether loading notices, says so, and falls back to exactly the checkpoint before."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoints"
        shutil.copytree(pristine, root)
        damage(root / f"step-{NEWEST:06d}", root / f"step-{OLDER:06d}", chance)
        warnings: list[str] = []
        loaded = _store(root, "this run", warnings).load_latest()
        expected = tensors_of(OLDER)
        return (
            loaded is not None
            and (loaded.step, loaded.state) == (OLDER, {"step": OLDER})
            and all(torch.equal(loaded.tensors[g][n], t) for g, ts in expected.items() for n, t in ts.items())
            and len(warnings) == 1
            and (root / "quarantine" / f"step-{NEWEST:06d}").exists()
        )


def run_trials(num_trials: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Return how often each damage was done, and how often it was not noticed."""
    done, missed = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        write_pristine(Path(folder))
        for trial in range(num_trials):
            damage = DAMAGES[trial % len(DAMAGES)]
            done[damage.__name__] += 1
            if not survives(Path(folder), damage, random.Random(f"{seed} {trial}")):
                missed[damage.__name__] += 1
                print(f"trial {trial} ({damage.__name__}) was not noticed", file=sys.stderr)
    return done, missed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done, missed = run_trials(options.trials, options.seed)
    for name, number in done.items():
        print(f"{name:24} {number - missed[name]:5} of {number} noticed")
    print(f"{'all':24} {done.total() - missed.total():5} of {done.total()} noticed, the older one used")
    if not missed:
        print(f"a damage that goes unnoticed is rarer than {3 / done.total():.2%} (95 %)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
