"""`rlhf train-rm`: a reward model from preferences. Bradley-Terry on the score at the last token of each answer.

The result is a one-label sequence classification model. Mean and standard deviation of its scores on the answers
of the training data go into the manifest, so that PPO can use scores of unit scale.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.algo.losses import bradley_terry
from rlhf_cli.algo.metrics import expected_calibration_error, pair_accuracy
from rlhf_cli.config.sections import RmLoss
from rlhf_cli.config.stages import TrainRmConfig
from rlhf_cli.data.batches import Layout, PairBatch
from rlhf_cli.data.encode import EncodedPair
from rlhf_cli.data.loader import RowSource, walk_pairs
from rlhf_cli.data.prepare import Prepared, comparisons_of, encode_comparisons, make_encoder_of, without_ties
from rlhf_cli.models.device import (
    Autocast,
    autocast_for,
    micro_tokens_for,
    num_parameters,
    pick_device,
    set_up_training,
)
from rlhf_cli.models.estimate import memory_in_words
from rlhf_cli.models.heads import load_classifier, scores_at
from rlhf_cli.models.load import LoadedModel, Vocabulary, load_vocabulary, parameters_in_words
from rlhf_cli.models.parallel import save_together, share_out
from rlhf_cli.run.metrics import Mean
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.distributions import record_scores
from rlhf_cli.stages.layout import choose_layout, sides_of
from rlhf_cli.training.loop import Cadence, Trainer
from rlhf_cli.training.optim import Role, Updater
from rlhf_cli.training.parts import Loss

_PAIRS_FOR_SCALE = 1000


def run(config: TrainRmConfig, run: Run) -> StageResult:
    """Train the reward model on comparisons and write it to the run."""
    with run.ranks.leader_first():
        vocabulary, data = prepare(config, run.dir.cache)
    data.publish(run)
    loaded = open_classifier(config, vocabulary)
    run.add_parent("model", loaded.path, loaded.digest)
    set_up_training(loaded.core, config.train)
    layout = choose_layout(run, [loaded], sides_of([*data.train, *data.eval]))
    source = walk(config, data, layout, run.ranks)
    share_out([(loaded, loaded.core.base_model)], config.distributed, run.ranks)
    roles = [Role("reward", loaded.model, config.optim.lr)]
    updater = Updater(roles, config.optim, source.num_steps, run.ranks)
    autocast = autocast_for(config.train.precision, loaded.device, num_parameters(loaded.model))
    learner = Learner(loaded, autocast, config.loss, source, data.eval[: config.eval.max_rows])
    trainer = Trainer(
        run,
        source,
        learner,
        updater,
        Cadence.of(config.log, config.eval, config.checkpoint),
        may_recompute=[loaded.core] if config.train.gradient_checkpointing == "auto" else (),
    )
    metrics = trainer.fit()
    judged, rows = learner.judged(data.train[:_PAIRS_FOR_SCALE]), "training"
    scores = torch.cat(judged[:2])
    run.set_extra("score_scale", {"mean": float(scores.mean()), "std": float(scores.std())})
    if learner.held_out:
        judged, rows = learner.judged(learner.held_out[:_PAIRS_FOR_SCALE]), "held out"
    record_scores(run, *judged, rows=rows)
    save_together(loaded, run, lambda: open_classifier(config, vocabulary))
    return StageResult(run.dir.model, source.num_steps, metrics)


def open_classifier(config: TrainRmConfig, vocabulary: Vocabulary) -> LoadedModel:
    """Open the model with a new head, always the same."""
    torch.manual_seed(config.seed)  # decides new LoRA weights and their dropout
    return load_classifier(config.model, vocabulary, new_head_seed=config.seed)


@dataclass(frozen=True)
class Learner:
    """The reward model with its loss."""

    loaded: LoadedModel
    autocast: Autocast
    loss: RmLoss
    source: RowSource[EncodedPair, PairBatch]
    held_out: Sequence[EncodedPair]

    def scores(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Score both sides of B pairs -> two [B]."""
        with self.autocast():
            both = scores_at(self.loaded.core, batch.answers.inputs, batch.answers.last_index)
        chosen, rejected = both.view(-1, 2).T
        return chosen, rejected

    def objective(self, batch: PairBatch) -> Loss:
        """Sum the Bradley-Terry losses of a micro-batch; its weight is the number of pairs."""
        batch = batch.to(self.loaded.device)
        chosen, rejected = self.scores(batch)
        losses = bradley_terry(
            chosen,
            rejected,
            p_chosen=batch.p_chosen,
            margin=batch.margin,
            center=self.loss.center,
            label_smoothing=self.loss.label_smoothing,
        )
        margins = (chosen - rejected).detach()
        weight = len(margins)
        metrics = {
            "accuracy": Mean(pair_accuracy(margins) * weight, weight),
            "margin": Mean(float(margins.sum()), weight),
        }
        return Loss(losses.sum(), weight, metrics, batch.answers.num_read)

    def scores_of(self, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
        """Score any pairs -> two tensors, not in the order given, without the dropout of adapters."""
        chosen, rejected, _ = self.judged(pairs)
        return chosen, rejected

    @torch.no_grad()
    def judged(self, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor, list[str]]:
        """Score as `scores_of`, and name the row that each pair is from."""
        self.loaded.core.eval()
        scored: list[tuple[float, float, str]] = []
        for batch, counts in self.source.turns(pairs):
            chosen, rejected = self.scores(batch.to(self.loaded.device))
            rows = zip(chosen.tolist(), rejected.tolist(), self.rows(batch), strict=True)
            scored += rows if counts else ()
        self.loaded.core.train()
        everything = [pair for share in self.source.ranks.gather(scored) for pair in share]
        scores = torch.tensor([pair[:2] for pair in everything])
        return scores[:, 0], scores[:, 1], [pair[2] for pair in everything]

    def rows(self, batch: PairBatch) -> Sequence[str]:
        """Name the rows of a micro-batch."""
        return batch.answers.origins[::2]

    def evaluate(self) -> Mapping[str, float]:
        """Measure accuracy, calibration and margin on the held-out pairs."""
        if not self.held_out:
            return {}
        chosen, rejected = self.scores_of(self.held_out)
        margins = chosen - rejected
        return {
            "accuracy": pair_accuracy(margins),
            "calibration_error": expected_calibration_error(margins),
            "margin": float(margins.mean()),
        }


def plan(config: TrainRmConfig) -> str:
    """Say what a run would do: data, parameters, memory, steps."""
    vocabulary, data = prepare(config)
    num_steps = walk(config, data, Layout(vocabulary.pad_id, packed=True)).num_steps
    size = f"{parameters_in_words(config.model, vocabulary)}, and a score head"
    memory = memory_in_words(config.model, config.train, vocabulary)
    return f"{data.text}\n{size}\n{memory}\nsteps: {num_steps}"


def prepare(config: TrainRmConfig, cache: Path | None = None) -> tuple[Vocabulary, Prepared[EncodedPair]]:
    """Read and encode the comparisons; ties and margins as the loss wants them."""
    records = comparisons_of(config.data, config.seed)
    if config.loss.ties == "drop":
        records = without_ties(records)
    vocabulary = load_vocabulary(config.model)
    make_encoder = make_encoder_of(
        config.data, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions, cache=cache
    )
    data = encode_comparisons(records, make_encoder)
    if config.loss.margin == "none":
        without = [dataclasses.replace(pair, margin=0.0) for pair in data.train]
        data = dataclasses.replace(data, train=without)
    return vocabulary, data


def walk(
    config: TrainRmConfig, data: Prepared[EncodedPair], layout: Layout, ranks: Ranks | None = None
) -> RowSource[EncodedPair, PairBatch]:
    """Walk the training rows as the configuration says."""
    micro_tokens = micro_tokens_for(config.train.micro_tokens, pick_device())
    return walk_pairs(
        data.train, layout, config.train, micro_tokens=micro_tokens, seed=config.seed, ranks=ranks
    )
