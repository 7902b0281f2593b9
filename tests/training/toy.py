"""A model small enough to train in milliseconds, with dropout, in a real run."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tiny import metrics_of
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Optim, Train
from rlhf_cli.data.loader import RowSource
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.metrics import Mean
from rlhf_cli.run.session import Run, StageResult, open_run
from rlhf_cli.training.loop import Cadence, Trainer
from rlhf_cli.training.optim import Role, Updater
from rlhf_cli.training.parts import Loss

Straight = tuple["Toy", RunDir]
NUM_ROWS, BATCH_SIZE, EPOCHS = 20, 8, 3  # steps of 8, 8 and 4 rows: 9 in all

Row = tuple[float, ...]
Rows = Tensor


def rows() -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(row) for row in torch.randn(NUM_ROWS, 4, generator=generator).tolist()]


class Toy:
    """Everything a trainer needs; `before(step, batch)` runs ahead of each micro-batch's loss."""

    def __init__(
        self,
        *,
        dropout: float = 0.3,
        micro_tokens: int = 3,
        epochs: int = EPOCHS,
        optim: Mapping[str, object] | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.may_recompute: Sequence[PreTrainedModel] = ()
        self.model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(dropout), nn.Tanh(), nn.Linear(5, 1))
        self.source: RowSource[Row, Rows] = RowSource(
            rows(),
            length=lambda row: 1,
            collate=lambda chosen: torch.tensor(chosen),
            train=Train(batch_size=BATCH_SIZE, epochs=epochs),
            micro_tokens=micro_tokens,
            seed=5,
        )
        settings = Optim(**{"lr": 0.05, "weight_decay": 0.1, **(optim or {})})  # type: ignore[arg-type]
        self.updater = Updater([Role("toy", self.model, settings.lr)], settings, self.source.num_steps)
        self.at_rehearsal = True
        self.before: Callable[[int, Rows], None] = lambda step, batch: None
        self.on_evaluate: Callable[[int], None] = lambda step: None

    def objective(self, batch: Rows) -> Loss:
        if self.at_rehearsal:
            self.at_rehearsal = False
            return self.loss(batch)
        self.before(self.updater.step_count + 1, batch)
        return self.loss(batch)

    def loss(self, batch: Rows) -> Loss:
        errors = (self.model(batch[:, :3])[:, 0] - batch[:, 3]).square()
        return Loss(errors.sum(), len(batch), {"error": Mean(float(errors.detach().sum()), len(batch))})

    def rows(self, batch: Rows) -> list[str]:
        return [f"row {row[3]:.3f}" for row in batch.tolist()]

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        self.on_evaluate(self.updater.step_count)
        self.model.eval()
        loss = self.loss(torch.tensor(rows()))
        self.model.train()
        return {"loss": float(loss.total)}

    def trainer(self, run: Run, *, log: int = 1, checkpoint: int = 4) -> Trainer[Rows]:
        cadence = Cadence(log=log, evaluate=2, checkpoint=checkpoint, keep=2)
        return Trainer(run, self.source, self, self.updater, cadence, may_recompute=self.may_recompute)

    def state(self) -> dict[str, Tensor]:
        """Give weights and moments by name."""
        weights = dict(self.updater.roles[0].parameters())
        tensors = {name: parameter.detach() for name, parameter in weights.items()}
        return {name: value.clone() for name, value in (tensors | self.updater.state_tensors()).items()}


def toy_spec(root: Path) -> RunSpec:
    return RunSpec(stage="sft", root=root, digest="toy", tree={"seed": 0})


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Say whether two states are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def gradients(batches: Sequence[Rows], toy: Toy) -> dict[str, Tensor]:
    """Add up the gradients of micro-batches."""
    weight = 0.0
    for batch in batches:
        loss = toy.objective(batch)
        torch.autograd.backward(loss.total)
        weight += loss.weight
    return {name: p.grad / weight for name, p in toy.model.named_parameters() if p.grad is not None}


def train(root: Path, toy: Toy, *, log: int = 4, checkpoint: int = 4) -> Run:
    """Train in a run of its own; where there is a checkpoint, the global generator starts elsewhere."""
    with open_run(toy_spec(root)) as run:
        torch.manual_seed(99 if list(run.dir.root.glob("checkpoints/step-*")) else 0)
        metrics = toy.trainer(run, log=log, checkpoint=checkpoint).fit()
        run.finish(StageResult(run.dir.checkpoints, toy.updater.step_count, metrics))
    return run


def at_step(number: int, act: Callable[[], None]) -> Callable[[int, Rows], None]:
    """Act once, when step `number` begins."""
    left = [act]

    def before(step: int, _: Rows) -> None:
        if step == number and left:
            left.pop()()

    return before


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def die() -> None:
    raise KeyboardInterrupt


def assert_resumes_to(straight: Straight, tmp_path: Path) -> None:
    """Train what is in `run` to the end: weights, optimizer and metrics are those of the undisturbed run."""
    again = Toy()
    run = train(tmp_path / "run", again)
    assert equal(again.state(), straight[0].state())
    assert metrics_of(run.dir) == metrics_of(straight[1])


def events_of(run_dir: RunDir) -> list[dict[str, object]]:
    return [json.loads(line) for line in run_dir.events.read_text().splitlines()]
