"""`rlhf verify` on a chain of two real runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import Tiny, make_tiny, run_stage

from rlhf_cli.cli import main


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sft, and dpo on its result."""
    root = tmp_path_factory.mktemp("chain")
    tiny: Tiny = make_tiny(root)
    run_stage("sft", tiny.settings("sft"), root)
    run_stage("dpo", tiny.settings("dpo", model__path=str(root / "sft")), root)
    return root


@pytest.fixture
def copy(chain: Path, tmp_path: Path) -> Iterator[Path]:
    """The same, at the paths that the manifests name: a backup comes back after the test."""
    shutil.copytree(chain, tmp_path / "backup")
    yield chain
    shutil.rmtree(chain)
    shutil.copytree(tmp_path / "backup", chain)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_untouched_chain_is_whole_back_to_its_start(chain: Path, capsys):
    assert main(["verify", str(chain / "dpo"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    paths = [Path(finding["path"]).relative_to(chain).as_posix() for finding in said["findings"]]
    assert paths == [
        "dpo/checkpoints/step-000002",
        "dpo/checkpoints/step-000004",
        "dpo/model",
        "sft",
        "sft/checkpoints/step-000002",
        "sft/checkpoints/step-000004",
        "sft/model",
        "model",
    ]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: flip(root / "dpo/checkpoints/step-000002/optimizer.safetensors"), "step-000002"),
        (lambda root: flip(root / "dpo/model/model.safetensors"), "dpo/model"),
        (lambda root: flip(root / "sft/model/model.safetensors"), "sft"),
        (
            lambda root: flip(root / "sft/checkpoints/step-000004/MANIFEST.json"),
            "sft/checkpoints/step-000004",
        ),
        (lambda root: flip(root / "model/model.safetensors"), "model"),
        (lambda root: shutil.rmtree(root / "sft/model"), "sft"),
        (lambda root: (root / "dpo/model/extra.json").write_text("{}"), "dpo/model"),
        (
            lambda root: (root / "sft/checkpoints/step-000004").rename(root / "sft/checkpoints/step-000005"),
            "000005",
        ),
    ],
)
def test_any_change_along_the_chain_is_found(
    copy: Path, damage: Callable[[Path], object], named: str, capsys
):
    damage(copy)
    assert main(["verify", str(copy / "dpo")]) == 65
    out = capsys.readouterr().out
    assert any(line.startswith("BAD") and named in line for line in out.splitlines())
    assert "are not what was written" in out
    assert main(["verify", str(copy / "dpo"), "--json"]) == 65
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_a_folder_that_is_no_run(tmp_path: Path, capsys):
    assert main(["verify", str(tmp_path)]) == 66
    assert "there is no run in" in capsys.readouterr().err
