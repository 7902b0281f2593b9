"""Too little memory: seen before the first step, made up for by smaller micro-batches, or explained."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import Tiny, column, metrics_of, run_stage
from torch import nn
from toy import Rows, Toy, equal, events_of, train
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_cli.config.sections import Train
from rlhf_cli.data.loader import WHOLE_STEP, RowSource
from rlhf_cli.errors import ResourceError
from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.run.directory import RunDir
from rlhf_cli.training.memory import rng_tensors
from rlhf_cli.training.parts import Loss
from rlhf_cli.training.stepping import Stepper

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    MemoryError(),
]


class Tight(Toy):
    """A toy in a machine where some micro-batches do not fit; half the work is done by then."""

    def __init__(self, most_rows: Callable[[int], int], error: Exception = ERRORS[0], **options) -> None:
        super().__init__(**options)
        self.most_rows, self.error = most_rows, error
        self.sizes: list[tuple[int, int]] = []

    def objective(self, batch: Rows) -> Loss:
        step = self.updater.step_count + 1
        self.sizes.append((step, len(batch)))
        loss = self.loss(batch)
        if len(batch) > self.most_rows(step):
            raise self.error
        return loss


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("most_rows", [1, 2, 3, 5, 7])
def test_micro_batches_shrink_at_the_rehearsal_and_the_gradient_stays(tmp_path, error, most_rows):
    roomy = Toy(dropout=0.0, micro_tokens=8)
    tight = Tight(lambda step: most_rows, error, dropout=0.0, micro_tokens=8)
    train(tmp_path / "roomy", roomy)
    run = train(tmp_path / "tight", tight)
    for name, value in roomy.state().items():
        assert torch.allclose(tight.state()[name], value, atol=1e-6)
    tried = [size for step, size in tight.sizes]
    rehearsed = tried.index(next(size for size in tried if size <= most_rows)) + 1
    assert max(tried[:rehearsed]) == 8
    assert max(tried[rehearsed:]) <= most_rows  # no step of training was lost to it
    assert "micro-batches are halved" in run.dir.log.read_text()


def test_memory_that_shrinks_later_costs_the_step_nothing(tmp_path: Path):
    roomy = Toy(dropout=0.0, micro_tokens=8)
    tight = Tight(lambda step: 8 if step < 5 else 2, dropout=0.0, micro_tokens=8)
    expected = train(tmp_path / "roomy", roomy)
    run = train(tmp_path / "tight", tight)
    for name, value in roomy.state().items():
        assert torch.allclose(tight.state()[name], value, atol=1e-6)
    for row, other in zip(metrics_of(run.dir), metrics_of(expected.dir), strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    assert [size for step, size in tight.sizes if step == 5] == [8, 4, 2, 2, 2, 2]


def test_a_resumed_run_keeps_to_the_smaller_micro_batches(tmp_path: Path):
    """Else the sums of its steps round otherwise than those of a run that was never interrupted."""

    def most_rows(step: int) -> int:
        return 8 if step != 2 else 2

    whole = Tight(most_rows, micro_tokens=8)
    train(tmp_path / "whole", whole)
    first = Tight(most_rows, micro_tokens=8)
    first.on_evaluate = lambda step: stop_at(step, 6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", first)
    second = Tight(most_rows, micro_tokens=8)
    train(tmp_path / "run", second)
    assert equal(second.state(), whole.state())
    assert {size for step, size in second.sizes[1:]} <= {1, 2}


def stop_at(step: int, last: int) -> None:
    if step == last:
        raise KeyboardInterrupt


def test_one_row_that_does_not_fit_ends_the_run_with_what_to_change(tmp_path: Path):
    with pytest.raises(ResourceError, match="one row alone does not fit; the peak was") as caught:
        train(tmp_path / "run", Tight(lambda step: 0, micro_tokens=8))
    assert caught.value.exit_code == 71
    assert caught.value.where == "data.max_length"
    assert "train.gradient_checkpointing" in str(caught.value.fix)
    assert "GiB" in caught.value.message
    kinds = [event["kind"] for event in events_of(RunDir(tmp_path / "run"))]
    assert "training" not in kinds  # it was found out before the first step


class FullInBackward(torch.autograd.Function):
    """Lets a loss through, and has no memory left for its gradient."""

    @staticmethod
    def forward(ctx, total):
        return total.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError(
            "CUDA out of memory"
        )  # a new one: an error keeps the frames it came through


def test_the_micro_batch_that_is_named_and_judged_is_the_one_that_did_not_fit(tmp_path: Path):
    """It fails in the backward pass, ahead of others that fit; its graph is gone when the step is tried again."""
    tight = Toy(dropout=0.0, micro_tokens=4)
    losses: list[weakref.ref[torch.Tensor]] = []
    sizes: list[int] = []

    def objective(batch: Rows) -> Loss:
        alive = [loss() for loss in losses]
        assert all(loss is None or loss.grad_fn is None for loss in alive), "a graph is kept"
        loss = tight.loss(batch)
        if tight.updater.step_count == 1 and len(sizes) == 0:
            sizes.append(len(batch))
            loss = replace(loss, total=FullInBackward.apply(loss.total))
        losses.append(weakref.ref(loss.total))
        return loss

    tight.objective = objective  # type: ignore[method-assign]
    run = train(tmp_path / "tight", tight)
    roomy = Toy(dropout=0.0, micro_tokens=4)
    train(tmp_path / "roomy", roomy)
    assert all(torch.allclose(tight.state()[name], value, atol=1e-6) for name, value in roomy.state().items())
    assert f"out of memory at step 2 with {sizes[0]} rows" in run.dir.log.read_text()


def recomputes(model: nn.Module) -> bool:
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return all(layer.gradient_checkpointing for layer in layers)


def test_one_row_that_fits_once_activations_are_computed_twice_goes_on(tiny: Tiny, tmp_path: Path):
    whole = run_stage("sft", tiny.settings("sft"), tmp_path)
    core = load_policy_for_sampling(tiny.model).core
    tight = Tight(lambda step: 8 if recomputes(core) else 0, dropout=0.0, micro_tokens=8)
    tight.may_recompute = [core]
    run = train(tmp_path / "run", tight)
    assert "activations are computed twice" in run.dir.log.read_text()
    assert [size for _, size in tight.sizes[:4]] == [8, 4, 2, 1]
    twice = tiny.settings("sft", run_dir="twice", train__gradient_checkpointing=True)
    assert column(run_stage("sft", twice, tmp_path).dir, "loss") == pytest.approx(column(whole.dir, "loss"))


def test_another_error_is_not_taken_for_memory(tmp_path: Path):
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(tmp_path / "run", Tight(lambda step: 0, RuntimeError("shape mismatch")))


def test_a_rehearsal_leaves_no_trace():
    toy = Toy()
    generators, state = rng_tensors(), toy.state()
    Stepper(toy.source, toy, toy.updater, say=pytest.fail).rehearse()
    assert equal(rng_tensors(), generators)
    assert equal(toy.state(), state)
    assert all(parameter.grad is None for parameter in toy.model.parameters())
    assert next(iter(toy.source))[0].shape == (3, 4)  # the walk starts where it would have


def test_the_largest_micro_batch_is_that_of_the_longest_rows():
    def walk(micro_tokens: int) -> RowSource[int, tuple[int, ...]]:
        train = Train(batch_size=3)
        return RowSource([5, 1, 9, 2], lambda row: row, tuple, train=train, micro_tokens=micro_tokens, seed=0)

    assert walk(18).largest() == (9, 5)  # two rows of nine; the third is alone
    assert walk(4).largest() == (9,)
    assert walk(WHOLE_STEP).largest() == (9, 5, 2)
    assert not walk(WHOLE_STEP).shrink()
    source = walk(1000)
    assert source.shrink()  # of 3 x 9 tokens half are left: 13
    assert source.largest() == (5, 2)  # ten tokens with padding
