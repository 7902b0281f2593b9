"""The training loop on a toy: what interrupts it changes nothing, what breaks it leaves good checkpoints."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny import metrics_of
from toy import (
    Straight,
    Toy,
    assert_resumes_to,
    at_step,
    die,
    equal,
    events_of,
    gradients,
    rows,
    terminate,
    train,
)

from rlhf_cli.errors import Preempted
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.metrics import Mean
from rlhf_cli.training.loop import Trainer

NUM_STEPS = 9


def test_micro_batches_of_one_row_are_one_micro_batch_of_eight():
    batch = torch.tensor(rows()[:8])
    one = gradients([batch], Toy(dropout=0.0))
    eight = gradients(list(batch.split(1)), Toy(dropout=0.0))
    uneven = gradients([batch[:5], batch[5:6], batch[6:]], Toy(dropout=0.0))
    for name, expected in one.items():
        assert torch.allclose(eight[name], expected, rtol=0, atol=1e-6)
        assert torch.allclose(uneven[name], expected, rtol=0, atol=1e-6)


def test_whole_runs_do_not_depend_on_micro_batches(tmp_path: Path):
    toys = [Toy(dropout=0.0, micro_tokens=size) for size in (1, 3, 100)]
    runs = [train(tmp_path / str(i), toy) for i, toy in enumerate(toys)]
    for toy, run in zip(toys[1:], runs[1:], strict=True):
        for name, value in toys[0].state().items():
            assert torch.allclose(toy.state()[name], value, atol=1e-6)
        for row, expected in zip(metrics_of(run.dir), metrics_of(runs[0].dir), strict=True):
            assert row == pytest.approx(expected, abs=1e-5)


def test_a_straight_run_logs_evaluates_and_saves(tmp_path: Path):
    toy = Toy()
    run = train(tmp_path / "run", toy)
    table = metrics_of(run.dir)
    assert [row["step"] for row in table if "loss" in row] == [4, 8, 9]
    assert [row["step"] for row in table if "eval/loss" in row] == [0, 2, 4, 6, 8, 9]
    assert sorted(path.name for path in run.dir.checkpoints.iterdir()) == ["step-000008", "step-000009"]
    assert run.manifest.last_checkpoint_step == NUM_STEPS
    assert run.manifest.result is not None
    assert run.manifest.result.metrics["eval/loss"] == table[-1]["eval/loss"]
    assert table[-1]["eval/loss"] < table[0]["eval/loss"]
    saved = [event["step"] for event in events_of(run.dir) if event["kind"] == "checkpointed"]
    assert saved == [4, 8, 9]


def test_logged_means_are_over_rows_since_the_last_line(tmp_path: Path):
    each = metrics_of(train(tmp_path / "each", Toy(), log=1).dir)
    fourth = metrics_of(train(tmp_path / "fourth", Toy(), log=4).dir)
    losses = {row["step"]: row["loss"] for row in each if "loss" in row}
    sizes = {step: (8, 8, 4)[(step - 1) % 3] for step in losses}
    first = sum(losses[s] * sizes[s] for s in (1, 2, 3, 4)) / sum(sizes[s] for s in (1, 2, 3, 4))
    assert next(row["loss"] for row in fourth if row["step"] == 4 and "loss" in row) == pytest.approx(first)


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_a_stop_request_at_any_step_changes_nothing(tmp_path: Path, straight: Straight, step: int):
    """It comes in the first micro-batch of a step, which is then undone."""
    toy = Toy()
    toy.before = at_step(step, terminate)
    with pytest.raises(Preempted, match=f"interrupted after step {step - 1}, checkpoint saved") as caught:
        train(tmp_path / "run", toy)
    assert caught.value.exit_code == 75
    assert (tmp_path / "run" / "checkpoints" / f"step-{step - 1:06d}").exists()
    assert_resumes_to(straight, tmp_path)


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_stop_request_in_the_last_micro_batch_lets_the_step_finish(
    tmp_path: Path, straight: Straight, step: int
):
    toy = Toy(micro_tokens=100)
    toy.before = at_step(step, terminate)
    with pytest.raises(Preempted, match=f"interrupted after step {step}, checkpoint saved"):
        train(tmp_path / "run", toy)
    uncut = Toy(micro_tokens=100)
    whole = train(tmp_path / "whole", uncut)
    again = Toy(micro_tokens=100)
    assert metrics_of(train(tmp_path / "run", again).dir) == metrics_of(whole.dir)
    assert equal(again.state(), uncut.state())


def test_a_stop_request_ends_an_evaluation_at_once(tmp_path: Path, straight: Straight):
    toy = Toy()
    toy.on_evaluate = lambda step: terminate() if step == 4 else None
    with pytest.raises(Preempted, match="interrupted after step 4, checkpoint saved"):
        train(tmp_path / "run", toy)
    assert [row["step"] for row in metrics_of(RunDir(tmp_path / "run")) if "eval/loss" in row] == [0, 2]
    assert_resumes_to(straight, tmp_path)


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_a_sudden_death_at_any_step_changes_nothing(tmp_path: Path, straight: Straight, step: int):
    toy = Toy()
    toy.before = at_step(step, die)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", toy)
    assert_resumes_to(straight, tmp_path)


def test_many_interruptions_change_nothing(tmp_path: Path, straight: Straight):
    for step, act in enumerate([terminate, die, terminate, die, die, terminate], start=2):
        toy = Toy()
        toy.before = at_step(step, act)
        with suppress(Preempted, KeyboardInterrupt):
            train(tmp_path / "run", toy)
    assert_resumes_to(straight, tmp_path)


def test_an_interrupted_evaluation_is_made_up_for(tmp_path: Path, straight: Straight):
    for step in (0, 4, 9):
        toy = Toy()

        def stop(now: int, step: int = step) -> None:
            if now == step:
                raise Preempted("interrupted while sampling")

        toy.on_evaluate = stop
        with pytest.raises(Preempted, match=f"after step {step}, checkpoint saved"):
            train(tmp_path / "run", toy)
    assert_resumes_to(straight, tmp_path)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path):
    first, second = Toy(), Toy()
    train(tmp_path / "run", first)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    train(tmp_path / "run", second)
    assert equal(first.state(), second.state())
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_a_damaged_newest_checkpoint_costs_time_only(tmp_path: Path, straight: Straight):
    toy = Toy()
    toy.before = at_step(9, die)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", toy)
    newest = tmp_path / "run" / "checkpoints" / "step-000008" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4])
    assert_resumes_to(straight, tmp_path)
    assert "step-000008 does not verify" in (tmp_path / "run" / "log.txt").read_text()


class Iterations:
    """A source with boundaries after every third step only, such as PPO's."""

    num_idle = 0

    def __init__(self) -> None:
        self.position, self.num_steps = 0, 9
        self.at_boundary = True

    def __iter__(self):
        while self.position < self.num_steps:
            self.position += 1
            self.at_boundary = self.position % 3 == 0
            yield [torch.tensor(rows()[:4])]

    def largest(self) -> None:
        return None

    def facts(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, object]:
        assert self.at_boundary
        return {"position": self.position}

    def load_state_dict(self, state) -> None:
        self.position = state["position"]


def test_everything_waits_for_the_boundary(tmp_path: Path):
    toy, seen = Toy(), []
    toy.source = Iterations()  # type: ignore[assignment]
    toy.on_evaluate = seen.append
    toy.before = at_step(4, terminate)
    with pytest.raises(Preempted, match="after step 6"):
        train(tmp_path / "run", toy)
    assert seen == [0, 3]  # every second step was asked for; stopping, the last one is left for later
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-000006"]


def test_a_mean_over_nothing_reads_as_not_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Trainer, "_evaluate_if_due", lambda self, bar: None)
    toy = Toy()
    objective = toy.objective
    toy.objective = lambda batch: with_metric(objective(batch))  # type: ignore[method-assign]
    run = train(tmp_path / "run", toy)
    assert {row["none"] for row in metrics_of(run.dir)} == {None}


def with_metric(loss):
    return type(loss)(loss.total, loss.weight, {"none": Mean(0.0, 0.0)})
