"""Checkpoints against every kind of damage: what loads is what was saved, or an older one, or an error."""

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf_cli.errors import CheckpointError, ResourceError
from rlhf_cli.run.seal import check_seal
from rlhf_cli.training import checkpoint
from rlhf_cli.training.checkpoint import Checkpoint, CheckpointStore

FILES = ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "MANIFEST.json"]


class Place:
    """A folder of checkpoints, and what was warned about on the way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: list[str] = []

    def store(self, *, keep: int = 2) -> CheckpointStore:
        return CheckpointStore(self.root, "this run", keep=keep, warn=self.warnings.append)

    def save(self, *steps: int, keep: int = 2) -> None:
        store = self.store(keep=keep)
        for step in steps:
            store.save(step, tensors_of(step), {"step": step, "coef": 0.1})

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "checkpoints")


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"a.weight": torch.randn(3, 4, generator=generator), "b": torch.tensor(float(step))},
        "optimizer": {"a.weight/exp_avg": torch.randn(3, 4, generator=generator)},
        "rng": {"cpu": torch.randint(0, 256, (16,), dtype=torch.uint8, generator=generator)},
    }


def assert_is(loaded: Checkpoint | None, step: int) -> None:
    assert loaded is not None
    assert loaded.step == step
    assert loaded.state == {"step": step, "coef": 0.1}
    expected = tensors_of(step)
    assert loaded.tensors.keys() == expected.keys()
    for name, group in expected.items():
        assert loaded.tensors[name].keys() == group.keys()
        assert all(torch.equal(loaded.tensors[name][key], value) for key, value in group.items())


def test_what_is_saved_comes_back(place: Place):
    assert place.store().load_latest() is None
    place.save(7)
    assert sorted(path.name for path in (place.root / "step-000007").iterdir()) == sorted(FILES)
    assert_is(place.store().load_latest(), 7)
    assert place.warnings == []


def test_views_and_shared_storage_can_be_saved(place: Place):
    base = torch.arange(6.0).reshape(2, 3)
    place.store().save(1, {"model": {"t": base.T, "row": base[0].clone()}}, {})
    loaded = place.store().load_latest()
    assert loaded is not None
    assert torch.equal(loaded.tensors["model"]["t"], base.T)


def test_the_newest_are_kept(place: Place):
    place.save(2, 10, 9, 1_000_000, keep=2)
    assert place.names() == ["step-000010", "step-1000000"]
    assert_is(place.store().load_latest(), 1_000_000)


def test_a_step_is_saved_once(place: Place):
    place.save(3)
    before = (place.root / "step-000003" / "MANIFEST.json").stat().st_mtime_ns
    place.save(3)
    assert (place.root / "step-000003" / "MANIFEST.json").stat().st_mtime_ns == before


def flip_a_bit(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def delete(file: Path, other: Path) -> None:
    file.unlink()


def swap(file: Path, other: Path) -> None:
    shutil.copy(other, file)


DAMAGES = [flip_a_bit, truncate, empty, delete, swap]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_and_the_older_one_is_used(
    place: Place, damage: Callable[[Path, Path], None], name: str
):
    place.save(4, 8)
    damage(place.root / "step-000008" / name, place.root / "step-000004" / name)
    assert_is(place.store().load_latest(), 4)
    assert place.names() == ["quarantine", "step-000004"]
    assert len(place.warnings) == 1
    assert "step-000008 does not verify" in place.warnings[0]
    place.save(8)  # the step is trained again
    assert_is(place.store().load_latest(), 8)


def test_every_bit_of_a_manifest_counts(place: Place):
    place.save(4)
    manifest = place.root / "step-000004" / "MANIFEST.json"
    whole = manifest.read_bytes()
    for byte in range(0, len(whole), 3):
        content = bytearray(whole)
        content[byte] ^= 1 << (byte % 8)
        manifest.write_bytes(content)
        with pytest.raises(CheckpointError):
            check_seal(manifest.parent)
    manifest.write_bytes(whole)
    assert check_seal(manifest.parent)["step"] == 4


def test_a_renamed_checkpoint_is_not_believed(place: Place):
    place.save(4)
    (place.root / "step-000004").rename(place.root / "step-000005")
    with pytest.raises(CheckpointError):
        place.store().load_latest()


def test_no_good_checkpoint_is_an_error_and_stays_one(place: Place):
    place.save(4, 8)
    for folder in place.root.iterdir():
        truncate(folder / "model.safetensors", folder)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no checkpoint of this run verifies") as caught:
            place.store().load_latest()
        assert "--fresh" in str(caught.value.fix)
    assert sorted(path.name for path in (place.root / "quarantine").iterdir()) == [
        "step-000004",
        "step-000008",
    ]


def test_the_same_step_can_be_quarantined_twice(place: Place):
    place.save(4)
    for _ in range(2):
        place.save(8)
        delete(place.root / "step-000008" / "state.json", place.root)
        assert_is(place.store().load_latest(), 4)


def test_what_a_killed_process_leaves_is_swept(place: Place):
    place.save(4)
    for leftover in (".tmp-step-000008", ".del-step-000002", ".step-000004.del-12ab34cd"):
        shutil.copytree(place.root / "step-000004", place.root / leftover)
    assert_is(place.store().load_latest(), 4)
    assert place.names() == ["step-000004"]


def test_strangers_are_left_alone(place: Place):
    place.save(4)
    (place.root / "notes.txt").write_text("mine")
    (place.root / "step-12").mkdir()
    assert_is(place.store(keep=1).load_latest(), 4)
    place.save(5, keep=1)
    assert place.names() == ["notes.txt", "step-000005", "step-12"]


@pytest.mark.parametrize("step", ["save_file", "seal", "publish_dir"])
def test_a_disk_that_refuses_leaves_no_half_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    place.save(4)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, step, refuse)
        with pytest.raises(ResourceError, match="step 8 could not be written") as caught:
            place.save(8)
    assert caught.value.exit_code == 71
    assert place.names() == ["step-000004"]
    assert_is(place.store().load_latest(), 4)


def test_a_disk_that_is_really_full(place: Place):
    """safetensors has an error of its own for this."""
    place.save(4)
    too_much = {"model": {"w": torch.zeros(100_000)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(ResourceError, match="step 8 could not be written"):
            place.store().save(8, too_much, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert place.names() == ["step-000004"]


def test_the_manifest_is_the_last_to_be_written(place: Place, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []

    def record(temporary: Path, final: Path) -> None:
        seen.append(sorted(path.name for path in temporary.iterdir()))
        manifest = json.loads((temporary / "MANIFEST.json").read_text())
        assert sorted(manifest["files"]) == sorted(set(FILES) - {"MANIFEST.json"})
        temporary.rename(final)

    monkeypatch.setattr(checkpoint, "publish_dir", record)
    place.save(4)
    assert seen == [sorted(FILES)]
