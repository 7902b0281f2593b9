"""`rlhf sft`: supervised fine-tuning. Token-mean cross-entropy on completions, over the whole optimizer step.

The same stage pre-trains: `text` rows with `loss.on: all`, on `model.from_scratch`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_cli.algo.losses import sft_loss
from rlhf_cli.config.stages import SftConfig
from rlhf_cli.data.batches import AnswerBatch, Layout
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.data.loader import RowSource, walk_texts
from rlhf_cli.data.prepare import (
    Prepared,
    demonstrations_of,
    encode_demonstrations,
    make_encoder_of,
    texts_of,
)
from rlhf_cli.models.device import (
    Autocast,
    autocast_for,
    micro_tokens_for,
    num_parameters,
    pick_device,
    set_up_training,
)
from rlhf_cli.models.estimate import memory_in_words
from rlhf_cli.models.load import (
    LoadedModel,
    Vocabulary,
    load_vocabulary,
    make_vocabulary,
    open_policy,
    parameters_in_words,
)
from rlhf_cli.models.parallel import save_together, share_out
from rlhf_cli.models.scoring import logprobs_at
from rlhf_cli.run.metrics import Mean, merge_together
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.layout import choose_layout
from rlhf_cli.training.loop import Cadence, Trainer
from rlhf_cli.training.optim import Role, Updater
from rlhf_cli.training.parts import Loss


def run(config: SftConfig, run: Run) -> StageResult:
    """Train the model on demonstrations and write it to the run."""
    with run.ranks.leader_first():
        vocabulary, data = prepare(config, run.dir.cache)
    data.publish(run)
    policy = open_policy(config.model, vocabulary, config.seed)
    run.add_parent("model", policy.path, policy.digest)
    set_up_training(policy.core, config.train)
    source = walk(config, data, choose_layout(run, [policy], [*data.train, *data.eval]), run.ranks)
    share_out([(policy, policy.model)], config.distributed, run.ranks)
    roles = [Role("policy", policy.model, config.optim.lr)]
    updater = Updater(roles, config.optim, source.num_steps, run.ranks)
    autocast = autocast_for(config.train.precision, policy.device, num_parameters(policy.model))
    learner = Learner(policy, autocast, source, data.eval[: config.eval.max_rows])
    trainer = Trainer(
        run,
        source,
        learner,
        updater,
        Cadence.of(config.log, config.eval, config.checkpoint),
        may_recompute=[policy.core] if config.train.gradient_checkpointing == "auto" else (),
    )
    metrics = trainer.fit()
    save_together(policy, run, lambda: open_policy(config.model, vocabulary, config.seed))
    return StageResult(run.dir.model, source.num_steps, metrics)


@dataclass(frozen=True)
class Learner:
    """The policy with its loss."""

    policy: LoadedModel
    autocast: Autocast
    source: RowSource[EncodedText, AnswerBatch]
    held_out: Sequence[EncodedText]

    def objective(self, batch: AnswerBatch) -> Loss:
        """Sum the negative log-likelihoods of a micro-batch; its weight is the number of trained tokens."""
        batch = batch.to(self.policy.device)
        with self.autocast():
            logprobs = logprobs_at(self.policy.model, batch.inputs, batch.predictor_index, batch.target_ids)
        return Loss(sft_loss(logprobs), weight=len(logprobs), num_tokens=batch.num_read)

    def rows(self, batch: AnswerBatch) -> Sequence[str]:
        """Name the rows of a micro-batch."""
        return batch.origins

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Measure the token-mean loss on the held-out rows, without dropout."""
        if not self.held_out:
            return {}
        self.policy.model.eval()
        total = Mean(0.0, 0.0)
        for batch, counts in self.source.turns(self.held_out):
            loss = self.objective(batch)
            total = total + Mean(float(loss.total), loss.weight) if counts else total
        self.policy.model.train()
        return {"loss": merge_together({"loss": total}, self.source.ranks)["loss"].value}


def plan(config: SftConfig) -> str:
    """Say what a run would do: data, parameters, memory, steps."""
    vocabulary, data = prepare(config)
    size = parameters_in_words(config.model, vocabulary)
    layout = Layout(vocabulary.pad_id, packed=True)
    memory = memory_in_words(config.model, config.train, vocabulary)
    return f"{data.text}\n{size}\n{memory}\nsteps: {walk(config, data, layout).num_steps}"


def prepare(config: SftConfig, cache: Path | None = None) -> tuple[Vocabulary, Prepared[EncodedText]]:
    """Read and encode the data with the model's vocabulary, or one trained on it."""
    records = demonstrations_of(config.data, config.seed)
    if config.model.from_scratch is not None:
        vocabulary = make_vocabulary(config.model.from_scratch, texts_of(records.train))
    else:
        vocabulary = load_vocabulary(config.model)
    make_encoder = make_encoder_of(
        config.data, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions, cache=cache
    )
    return vocabulary, encode_demonstrations(records, make_encoder, loss_on=config.loss.on)


def walk(
    config: SftConfig, data: Prepared[EncodedText], layout: Layout, ranks: Ranks | None = None
) -> RowSource[EncodedText, AnswerBatch]:
    """Walk the training rows as the configuration says."""
    micro_tokens = micro_tokens_for(config.train.micro_tokens, pick_device())
    return walk_texts(
        data.train, layout, config.train, micro_tokens=micro_tokens, seed=config.seed, ranks=ranks
    )
