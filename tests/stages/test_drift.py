"""What a resumed run must find as it was: refused by name where it changed, or gone on with and noted."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import Settings, Tiny, metrics_of, spec_of, stage_module

from rlhf_cli.config.load import differing_keys
from rlhf_cli.errors import ResourceError, RunConflictError
from rlhf_cli.run import faults
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.failures import known_failure
from rlhf_cli.run.session import Run, open_run


@pytest.fixture
def own(tiny: Tiny, tmp_path: Path) -> Tiny:
    """Copy the tiny model and data, to be changed."""
    shutil.copytree(tiny.folder, tmp_path / "own")
    return Tiny(tmp_path / "own")


def run_stage(stage: str, settings: Settings, folder: Path, *allowed: str) -> Run:
    spec, config = spec_of(stage, settings, folder)
    with open_run(replace(spec, allowed_drift=allowed), differing_keys=differing_keys) as run:
        run.finish(stage_module(stage).run(config, run))
    return run


def interrupt(stage: str, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train to the end, and fail where the model is to be written."""
    faults._counts.clear()
    with monkeypatch.context() as patch:
        patch.setenv("RLHF_FAULT", "model.write:1=EIO")
        with pytest.raises(OSError, match="Input/output") as caught:
            run_stage(stage, settings, folder)
    assert isinstance(known_failure(caught.value), ResourceError)


def change_data(own: Tiny) -> None:
    for path in map(Path, (own.demonstrations, own.comparisons, own.prompts)):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0] |= {"prompt": "Color of the fox: "}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_order(own: Tiny) -> None:
    for path in map(Path, (own.demonstrations, own.comparisons, own.prompts)):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def change_model(own: Tiny) -> None:
    path = Path(own.model) / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, path, metadata={"format": "pt"})


def change_template(own: Tiny) -> None:
    (Path(own.model) / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}!{% endfor %}"
    )


@pytest.mark.parametrize(
    ("stage", "change", "name"),
    [
        ("sft", change_data, "data.train"),
        ("sft", change_order, "data.train"),
        ("sft", change_model, "model"),
        ("train-rm", change_data, "data.train"),
        ("dpo", change_model, "model"),
        ("ppo", change_data, "data.train"),
        ("ppo", change_model, "model"),
    ],
)
def test_a_change_is_refused_by_name_or_accepted_and_noted(
    own: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    change: Callable[[Tiny], None],
    name: str,
):
    settings = own.settings(stage, model__lora={"rank": 2})
    interrupt(stage, settings, tmp_path, monkeypatch)
    before = metrics_of(RunDir(tmp_path / stage))
    change(own)
    with pytest.raises(RunConflictError, match=f"trained with so far: {name}") as caught:
        run_stage(stage, settings, tmp_path)
    assert caught.value.exit_code == 73
    assert f"--allow-drift {name}" in str(caught.value.fix)
    assert metrics_of(RunDir(tmp_path / stage)) == before
    run = run_stage(stage, settings, tmp_path, name)
    assert [drift.change.split(":")[0].split(" ")[0] for drift in run.manifest.drifts] == [name]
    assert "goes on in spite of a change" in run.dir.log.read_text()
    run_stage(stage, settings, tmp_path)  # what was accepted is what is known now


def test_another_chat_template_is_refused(own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupt("sft", own.settings("sft"), tmp_path, monkeypatch)
    change_template(own)
    with pytest.raises(RunConflictError, match="chat_template"):
        run_stage("sft", own.settings("sft"), tmp_path)


def test_a_run_without_a_checkpoint_may_be_given_other_data(own: Tiny, tmp_path: Path):
    """Whoever corrects a broken file after a first attempt has nothing to lose."""
    settings = own.settings("sft")
    spec, config = spec_of("sft", settings, tmp_path)
    with open_run(spec) as run:
        stage_module("sft").prepare(config)[1].publish(run)
    assert run.manifest.identity["data.train"]
    change_data(own)
    assert run_stage("sft", settings, tmp_path).manifest.drifts == []


def test_a_configuration_key_may_be_changed_when_asked_for(
    own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupt("sft", own.settings("sft"), tmp_path, monkeypatch)
    longer = own.settings("sft", train__max_steps=6, optim__lr=1e-3)
    with pytest.raises(RunConflictError, match=r"optim.lr: 0.003 -> 0.001") as caught:
        run_stage("sft", longer, tmp_path, "train.max_steps")
    assert "train.max_steps" not in caught.value.message
    run = run_stage("sft", longer, tmp_path, "train.max_steps", "optim.lr")
    assert run.manifest.result is not None
    assert run.manifest.result.steps == 6
    assert [drift.change for drift in run.manifest.drifts] == [
        "optim.lr: 0.003 -> 0.001",
        "train.max_steps: 4 -> 6",
    ]
    assert run.manifest.attempts[-1].resumed_from_step == 4


def test_another_number_of_processes_is_noted(own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupt("sft", own.settings("sft"), tmp_path, monkeypatch)
    manifest = RunDir(tmp_path / "sft").manifest
    manifest.write_text(manifest.read_text().replace('"world_size": "1"', '"world_size": "2"'))
    run = run_stage("sft", own.settings("sft"), tmp_path)
    assert [drift.change for drift in run.manifest.drifts] == ["processes: 2 -> 1"]


def test_the_policy_of_a_resumed_run_is_bit_for_bit_the_same(
    own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The identity checks themselves change nothing."""
    interrupt("sft", own.settings("sft"), tmp_path, monkeypatch)
    resumed = run_stage("sft", own.settings("sft"), tmp_path).dir.model / "model.safetensors"
    whole = run_stage("sft", own.settings("sft", run_dir="whole"), tmp_path).dir.model / "model.safetensors"
    assert all(torch.equal(load_file(resumed)[name], value) for name, value in load_file(whole).items())
