"""NaN and infinity: named, left out, and never in a checkpoint."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import metrics_of
from toy import (
    NUM_ROWS,
    Rows,
    Straight,
    Toy,
    assert_resumes_to,
    at_step,
    die,
    equal,
    events_of,
    terminate,
    train,
)

from rlhf_cli.errors import DivergedError, Preempted
from rlhf_cli.run.directory import RunDir
from rlhf_cli.training.guards import BadSteps

NUM_STEPS = 9


def poison(*steps: int, value: float = math.nan) -> Callable[[int, Rows], None]:
    """Break the first row of each micro-batch of some steps."""

    def before(step: int, batch: Rows) -> None:
        if step in steps:
            batch[0, 3] = value

    return before


def poisoned(*steps: int, **options) -> Toy:
    toy = Toy(**options)
    toy.before = poison(*steps)
    return toy


def assert_checkpoints_are_finite(root: Path) -> None:
    files = list(root.glob("checkpoints/step-*/[mo]*.safetensors"))
    assert files
    assert all(bool(value.isfinite().all()) for file in files for value in load_file(file).values())


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_step_is_named_and_left_out(tmp_path: Path, step: int, value: float):
    toy = Toy()
    toy.before = poison(step, value=value)
    run = train(tmp_path / "run", toy)
    (event,) = [event for event in events_of(run.dir) if event["kind"] == "step_left_out"]
    assert event["step"] == step
    assert event["reason"] == f"the loss is not finite at step {step}"
    rows = event["rows"]
    assert isinstance(rows, list)
    assert 1 <= len(rows) <= 3  # those of the micro-batch, not of the whole step
    assert toy.updater.step_count == NUM_STEPS
    assert_checkpoints_are_finite(run.dir.root)


def test_a_step_left_out_changes_nothing_but_the_step_count(tmp_path: Path, straight: Straight):
    toy = Toy()
    toy.before = poison(NUM_STEPS)
    run = train(tmp_path / "run", toy)
    expected = load_file(straight[1].checkpoints / "step-000008" / "model.safetensors")
    assert all(torch.equal(toy.state()[name], value) for name, value in expected.items())
    assert [row["step"] for row in metrics_of(run.dir) if "lr" in row] == [4, 8]


def test_a_gradient_that_is_not_finite_names_all_rows_of_the_step(tmp_path: Path):
    toy = Toy()

    def explode() -> None:
        toy.model[3].bias.register_hook(lambda gradient: gradient * math.inf)

    toy.before = at_step(9, explode)
    run = train(tmp_path / "run", toy)
    (event,) = [event for event in events_of(run.dir) if event["kind"] == "step_left_out"]
    assert "gradient of the toy is not finite at step 9" in str(event["reason"])
    rows = event["rows"]
    assert isinstance(rows, list)
    assert len(rows) == NUM_ROWS % 8
    assert_checkpoints_are_finite(run.dir.root)


def test_three_bad_steps_send_training_back_once_without_them(tmp_path: Path):
    toy = poisoned(5, 6, 7)
    run = train(tmp_path / "run", toy)
    (event,) = [event for event in events_of(run.dir) if event["kind"] == "went_back"]
    assert (event["step"], event["left_out"]) == (4, [5, 6, 7])
    assert [row["step"] for row in metrics_of(run.dir) if "eval/loss" in row] == [0, 2, 4, 6, 8, 9]
    assert toy.updater.step_count == NUM_STEPS
    assert_checkpoints_are_finite(run.dir.root)


def test_what_stays_broken_ends_the_run(tmp_path: Path):
    toy = poisoned(*range(4, 10), epochs=4)
    with pytest.raises(DivergedError, match="3 of 100 steps had to be left out") as caught:
        train(tmp_path / "run", toy)
    assert caught.value.exit_code == 76
    assert_checkpoints_are_finite(tmp_path / "run")
    kinds = [event["kind"] for event in events_of(RunDir(tmp_path / "run"))]
    assert (kinds.count("went_back"), kinds.count("step_left_out")) == (1, 6)


def test_without_a_checkpoint_there_is_no_way_back(tmp_path: Path):
    toy = poisoned(1, 2, 3)
    with pytest.raises(DivergedError, match="3 of 100 steps"):
        train(tmp_path / "run", toy)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_bad_steps_are_left_out_alike_when_a_run_is_interrupted(tmp_path: Path):
    bad, epochs = (2, 5, 6, 8), 4
    whole = poisoned(*bad, epochs=epochs)
    expected = train(tmp_path / "whole", whole).dir
    for step, act in [(3, terminate), (6, die), (7, terminate), (8, die)]:
        toy = Toy(epochs=epochs)
        interrupt = at_step(step, act)

        def before(now: int, batch: Rows, interrupt=interrupt) -> None:
            poison(*bad)(now, batch)
            interrupt(now, batch)

        toy.before = before
        with pytest.raises((Preempted, KeyboardInterrupt)):
            train(tmp_path / "run", toy)
    last = poisoned(*bad, epochs=epochs)
    run = train(tmp_path / "run", last)
    assert equal(last.state(), whole.state())
    assert metrics_of(run.dir) == metrics_of(expected)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path):
    toy = Toy()

    def overflow() -> None:
        torch.nn.init.constant_(toy.model[3].weight, 0.0)
        toy.updater._optimizer.param_groups[0]["peak_lr"] = 1e42

    toy.before = at_step(8, overflow)
    with pytest.raises(DivergedError):
        train(tmp_path / "run", toy)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000004"]
    assert "is not finite after step 8; back to step 4" in (tmp_path / "run" / "log.txt").read_text()
    assert_checkpoints_are_finite(tmp_path / "run")


def test_moments_that_are_not_finite_are_never_saved(tmp_path: Path, straight: Straight):
    toy = Toy()

    def spoil() -> None:
        state = next(iter(toy.updater._optimizer.state.values()))
        state["exp_avg_sq"].fill_(math.inf)  # the update is zero: weights stay good

    toy.before = at_step(8, spoil)
    train(tmp_path / "run", toy)
    assert "exp_avg_sq is not finite after step 8; back to step 4" in (tmp_path / "run/log.txt").read_text()
    assert equal(toy.state(), straight[0].state())
    assert_resumes_to(straight, tmp_path)


def test_three_within_a_hundred_count_and_not_more_apart():
    near, far = BadSteps(), BadSteps()
    assert [near.note(step) for step in (1, 50, 100)] == [False, False, True]
    assert [far.note(step) for step in (1, 50, 101, 102)] == [False, False, False, True]
    near.go_back()
    assert (near.left_out, near.recent, near.went_back) == ([1, 50, 100], [], True)
    assert BadSteps(**near.state_dict()) == near  # type: ignore[arg-type]
