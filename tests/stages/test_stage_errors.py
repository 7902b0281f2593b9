"""What stops a stage before it trains: the exit code, and the way out in the message."""

import json
from pathlib import Path

import pytest
from tiny import PROMPTS, Tiny, run_stage, save_tiny_model, write_rows

from rlhf_cli.errors import DataError, DivergedError, MissingInputError, Preempted, RlhfError
from rlhf_cli.stages import sft

every_stage = pytest.mark.parametrize("stage", ["sft", "train-rm", "dpo", "ppo"])
row_stage = pytest.mark.parametrize("stage", ["sft", "train-rm", "dpo"])


def failure(kind: type[RlhfError], stage: str, settings: dict[str, object], folder: Path) -> RlhfError:
    """Run a stage that must fail with `kind`, and leave a manifest that says so."""
    with pytest.raises(kind) as caught:
        run_stage(stage, settings, folder)
    manifest = json.loads((folder / str(settings["run_dir"]) / "manifest.json").read_text())
    assert manifest["exit_code"] == kind.exit_code
    assert not (folder / str(settings["run_dir"]) / "model").exists()
    assert caught.value.fix
    return caught.value


@row_stage
def test_no_row_ends_in_a_trained_eos(stage: str, tiny: Tiny, work: Path):
    error = failure(DataError, stage, tiny.settings(stage, data__max_length=11), work)
    assert error.exit_code == 65
    assert "no row ends in a trained EOS" in error.message
    assert "raise data.max_length" in str(error.fix)


@row_stage
def test_no_row_is_left(stage: str, tiny: Tiny, work: Path):
    error = failure(DataError, stage, tiny.settings(stage, data__max_length=4), work)
    assert "no row is left to train on" in error.message


def test_no_prompt_is_left(tiny: Tiny, work: Path):
    error = failure(DataError, "ppo", tiny.settings("ppo", data__max_length=8), work)
    assert "no prompt is left" in error.message
    assert "rollout.max_new_tokens" in str(error.fix)


def test_a_reward_model_of_another_tokenizer(tiny: Tiny, work: Path):
    save_tiny_model(work / "other", vocab_size=290)
    run_stage("train-rm", tiny.settings("train-rm", run_dir="rm", model__path="other"), work)
    for init in ("policy", "reward"):
        changes = {"run_dir": init, "reward": [{"kind": "model", "path": "rm"}], "critic": {"init": init}}
        error = failure(DataError, "ppo", tiny.settings("ppo", **changes), work)
        assert error.exit_code == 65
        assert "the reward model rm has another tokenizer" in error.message
        assert "train the reward model from the policy's own sft run" in str(error.fix)


@pytest.mark.parametrize("stage", ["dpo", "ppo"])
def test_a_reference_of_another_tokenizer(stage: str, tiny: Tiny, work: Path):
    save_tiny_model(work / "other", vocab_size=290)
    error = failure(DataError, stage, tiny.settings(stage, reference="other"), work)
    assert error.exit_code == 65
    assert "the reference other has another tokenizer" in error.message


def test_a_model_without_a_trained_head_is_no_reward_model(tiny: Tiny, work: Path):
    changes = {"reward": [{"kind": "model", "path": tiny.model}], "critic": {"init": "reward"}}
    error = failure(DataError, "ppo", tiny.settings("ppo", **changes), work)
    assert "no trained score head" in error.message


@every_stage
def test_an_unfinished_upstream_run(stage: str, tiny: Tiny, work: Path, monkeypatch: pytest.MonkeyPatch):
    def give_up(*_: object) -> None:
        raise Preempted("asked to stop")

    with monkeypatch.context() as patch:
        patch.setattr(sft, "prepare", give_up)
        with pytest.raises(Preempted):
            run_stage("sft", tiny.settings("sft", run_dir="first"), work)
    error = failure(DataError, stage, tiny.settings(stage, run_dir="second", model__path="first"), work)
    assert error.exit_code == 65
    assert "is preempted, not completed" in error.message
    assert "repeat its command" in str(error.fix)


@every_stage
@pytest.mark.parametrize("path", ["./nowhere", "nowhere/at/all", "."])
def test_a_model_that_is_not_there(stage: str, path: str, tiny: Tiny, work: Path):
    error = failure(MissingInputError, stage, tiny.settings(stage, model__path=path), work)
    assert error.exit_code == 66


@every_stage
def test_data_that_is_not_there(stage: str, tiny: Tiny, work: Path):
    error = failure(
        MissingInputError, stage, tiny.settings(stage, data__train=[{"path": "./no.jsonl"}]), work
    )
    assert error.exit_code == 66
    assert "no.jsonl" in str(error)


@every_stage
def test_rows_of_another_kind(stage: str, tiny: Tiny, work: Path):
    path = write_rows(work / "strange.jsonl", [{"weather": "fine"}])
    error = failure(DataError, stage, tiny.settings(stage, data__train=[{"path": path}]), work)
    assert error.exit_code == 65


@row_stage
def test_a_learning_rate_that_breaks_the_model(stage: str, tiny: Tiny, work: Path):
    changes = {"optim__lr": 1e30, "train__max_steps": 6, "checkpoint__every_steps": 100}
    error = failure(DivergedError, stage, tiny.settings(stage, **changes), work)
    assert error.exit_code == 76
    assert "lower optim.lr" in str(error.fix)
    assert not list((work / stage / "checkpoints").iterdir())


def test_prompts_of_the_tiny_data_fit(tiny: Tiny, work: Path):
    """The limits above are chosen for prompts of 9 tokens and answers of 4 or more."""
    run = run_stage("sft", tiny.settings("sft"), work)
    [report] = json.loads(run.dir.data_report.read_text())
    assert report["rows_read"] == len(PROMPTS)
    assert report["tokens"]["longest"] <= 16
