"""`rlhf dpo`: train a policy on preferences without a reward model or sampling (Rafailov et al. 2023).

Log-probs are sums over completion tokens, EOS included. Those of the reference are computed once, before the
first step, and kept on disk: when the reference is the starting model itself, no second model is ever loaded.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.algo.dpo import NEEDS_WHOLE_BATCH, dpo_loss, implicit_rewards
from rlhf_cli.algo.kto import kto, kto_gains
from rlhf_cli.algo.metrics import pair_accuracy
from rlhf_cli.algo.reference_free import KINDS as REFERENCE_FREE
from rlhf_cli.algo.reference_free import orpo, simpo
from rlhf_cli.algo.tensors import segment_sum
from rlhf_cli.config.sections import DpoLoss
from rlhf_cli.config.stages import DpoConfig
from rlhf_cli.data.batches import AnswerBatch, Layout, PairBatch
from rlhf_cli.data.encode import EncodedPair
from rlhf_cli.data.loader import WHOLE_STEP, RowSource, walk_pairs
from rlhf_cli.data.prepare import (
    Prepared,
    comparisons_of,
    encode_comparisons,
    labelled_of,
    make_encoder_of,
    without_ties,
)
from rlhf_cli.data.reference import with_reference
from rlhf_cli.models import device
from rlhf_cli.models.estimate import memory_in_words
from rlhf_cli.models.load import (
    LoadedModel,
    Vocabulary,
    load_reference,
    load_vocabulary,
    open_policy,
    parameters_in_words,
)
from rlhf_cli.models.parallel import save_together, share_out
from rlhf_cli.models.scoring import logprobs_at
from rlhf_cli.run.metrics import Mean, merge, merge_together
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.distributions import record_margins
from rlhf_cli.stages.layout import choose_layout, sides_of
from rlhf_cli.training.loop import Cadence, Trainer
from rlhf_cli.training.optim import Role, Updater
from rlhf_cli.training.parts import Loss

_PAIRS_FOR_HISTOGRAM = 1000


def run(config: DpoConfig, run: Run) -> StageResult:
    """Train the policy on comparisons and write it to the run."""
    with run.ranks.leader_first():
        vocabulary, data = prepare(config, run.dir.cache)
    data.publish(run)
    policy = open_trained(config, vocabulary)
    run.add_parent("model", policy.path, policy.digest)
    device.set_up_training(policy.core, config.train)
    autocast = device.autocast_for(config.train.precision, policy.device, device.num_parameters(policy.model))
    reference = policy if config.reference is None else load_reference(config.reference, policy.vocabulary)
    layout = choose_layout(run, [policy, reference], sides_of([*data.train, *data.eval]))
    models = [policy] if reference is policy else [policy, reference]
    share_out([(each, each.model) for each in models], config.distributed, run.ranks)
    if config.loss.type not in REFERENCE_FREE:
        data = attach_reference(config, run, reference, autocast, data, layout)
    source = walk(config, data, layout, run.ranks)
    learner = Learner(policy, autocast, config.loss, source, data.eval[: config.eval.max_rows])
    roles = [Role("policy", policy.model, config.optim.lr)]
    updater = Updater(roles, config.optim, source.num_steps, run.ranks)
    trainer = Trainer(
        run,
        source,
        learner,
        updater,
        Cadence.of(config.log, config.eval, config.checkpoint),
        may_recompute=[policy.core] if config.train.gradient_checkpointing == "auto" else (),
    )
    metrics = trainer.fit()
    pairs, rows = (learner.held_out, "held out") if learner.held_out else (data.train, "training")
    record_margins(run, learner.margins(pairs[:_PAIRS_FOR_HISTOGRAM]), rows=rows)
    save_together(policy, run, lambda: open_trained(config, vocabulary))
    return StageResult(run.dir.model, source.num_steps, metrics)


def open_trained(config: DpoConfig, vocabulary: Vocabulary) -> LoadedModel:
    """Open the policy without dropout."""
    policy = open_policy(config.model, vocabulary, config.seed)
    device.disable_dropout(policy.model)
    return policy


@dataclass(frozen=True)
class Learner:
    """The policy with its loss."""

    policy: LoadedModel
    autocast: device.Autocast
    loss: DpoLoss
    source: RowSource[EncodedPair, PairBatch]
    held_out: Sequence[EncodedPair]

    def objective(self, batch: PairBatch) -> Loss:
        """Sum the pair losses of a micro-batch; its weight is the number of pairs."""
        batch = batch.to(self.policy.device)
        sums = completion_logprobs(self.policy, self.autocast, batch.answers).view(-1, 2)
        num_tokens, reference = batch.answers.num_tokens.view(-1, 2), batch.reference_logprobs
        nll = -sums[:, 0] / num_tokens[:, 0]
        losses = pair_losses(self.loss, sums, reference, num_tokens, batch.p_chosen)
        total = losses.sum() + self.loss.sft_weight * nll.sum()
        margins = margins_of(self.loss, sums, reference, num_tokens, batch.p_chosen)
        weight = len(margins)
        good = batch.p_chosen.gt(0).to(nll.dtype)  # all of them, but for the bad answers of KTO
        metrics = {
            "accuracy": Mean(pair_accuracy(margins) * weight, weight),
            "margin": Mean(float(margins.sum()), weight),
            "chosen_nll": Mean(float(nll.detach() @ good), float(good.sum())),
        }
        if self.loss.type not in REFERENCE_FREE:
            change = sums[:, 0].detach() - reference[:, 0]
            metrics["chosen_logratio"] = Mean(float(change @ good), float(good.sum()))
        return Loss(total, weight, metrics, batch.answers.num_read)

    def rows(self, batch: PairBatch) -> Sequence[str]:
        """Name the rows of a micro-batch."""
        return batch.answers.origins[::2]

    @torch.no_grad()
    def margins(self, pairs: Sequence[EncodedPair]) -> Tensor:
        """Give the implicit reward margins of N pairs [N], not in the order given."""
        margins: list[float] = []
        for part, counts in self.source.turns(pairs):
            batch = part.to(self.policy.device)
            sums = completion_logprobs(self.policy, self.autocast, batch.answers).view(-1, 2)
            num_tokens = batch.answers.num_tokens.view(-1, 2)
            own = margins_of(self.loss, sums, batch.reference_logprobs, num_tokens, batch.p_chosen)
            margins += own.tolist() if counts else ()
        return torch.tensor([margin for share in self.source.ranks.gather(margins) for margin in share])

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Measure the loss, and how often and by how much the chosen answer gained more, on held-out pairs."""
        if not self.held_out:
            return {}
        merged: dict[str, Mean] = {}
        for batch, counts in self.source.turns(self.held_out):
            loss = self.objective(batch)
            if counts:
                merged = merge([merged, {"loss": Mean(float(loss.total), loss.weight)}, loss.metrics])
        merged = merge_together(merged, self.source.ranks)
        return {name: mean.value for name, mean in merged.items()}


def pair_losses(
    loss: DpoLoss, sums: Tensor, reference: Tensor, num_tokens: Tensor, p_chosen: Tensor
) -> Tensor:
    """Return the losses of B pairs [B] from their log-probs and lengths, all [B, 2] with the chosen side first.

    With KTO a pair is an answer and a stranger, and p_chosen [B] is its label.
    """
    kind = loss.type
    if kind == "kto":
        good_mask = p_chosen > 0
        logratios, strangers = (sums - reference).T
        gains = kto_gains(logratios, strangers, good_mask, beta=loss.beta)
        return kto(gains, good_mask, good_weight=loss.good_weight, bad_weight=loss.bad_weight)
    if kind == "simpo":
        return simpo(*(sums / num_tokens).T, beta=loss.beta, target_margin=loss.target_margin)
    if kind == "orpo":
        return orpo(*(sums / num_tokens).T, beta=loss.beta)
    num_chosen, num_rejected = num_tokens.T
    return dpo_loss(
        kind,
        *sums.T,
        *reference.T,
        beta=loss.beta,
        num_chosen_tokens=num_chosen,
        num_rejected_tokens=num_rejected,
        label_smoothing=loss.label_smoothing,
    )


def margins_of(
    loss: DpoLoss, sums: Tensor, reference: Tensor, num_tokens: Tensor, p_chosen: Tensor
) -> Tensor:
    """Return by how much the policy agrees with the labels in the terms of the loss -> [B], without gradient."""
    if loss.type == "kto":
        logratios, strangers = (sums - reference).detach().T
        return kto_gains(logratios, strangers, p_chosen > 0, beta=loss.beta)
    if loss.type in REFERENCE_FREE:
        rewards = loss.beta * (sums / num_tokens).detach()
    else:
        rewards = implicit_rewards(sums, reference, beta=loss.beta)
    return rewards[:, 0] - rewards[:, 1]


def completion_logprobs(policy: LoadedModel, autocast: device.Autocast, answers: AnswerBatch) -> Tensor:
    """Give the log-probs of A completions, each summed over its tokens, in nats [A]."""
    with autocast():
        logprobs = logprobs_at(policy.model, answers.inputs, answers.predictor_index, answers.target_ids)
    return segment_sum(logprobs, answers.answer_index, len(answers.last_index))


def attach_reference(
    config: DpoConfig,
    run: Run,
    reference: LoadedModel,
    autocast: device.Autocast,
    data: Prepared[EncodedPair],
    layout: Layout,
) -> Prepared[EncodedPair]:
    """Score all pairs with the reference, which is the policy before its first step unless one is configured."""
    run.event("reference")
    if config.reference is not None:
        run.add_parent("reference", reference.path, reference.digest)

    @torch.no_grad()
    def compute(pairs: Sequence[EncodedPair]) -> Tensor:
        scored = torch.zeros(len(pairs), 2)
        parts = layout.cut(
            range(len(pairs)),
            lambda i: layout.length_of_pair(pairs[i]),
            _micro_tokens(config),
            run.ranks.size,
        )
        for part, counts in run.ranks.turns(parts):
            batch = layout.collate_pairs([pairs[i] for i in part]).to(reference.device)
            sums = completion_logprobs(reference, autocast, batch.answers)
            if counts:
                scored[part] = sums.float().cpu().view(-1, 2)
        return run.ranks.add_up(scored)

    train, held_out = (
        with_reference(
            pairs,
            compute,
            folder=run.dir.cache,
            ranks=run.ranks,
            model_digest=f"{reference.digest} {config.train.precision}",
        )
        for pairs in (data.train, data.eval[: config.eval.max_rows])
    )
    return dataclasses.replace(data, train=train, eval=held_out)


def plan(config: DpoConfig) -> str:
    """Say what a run would do: data, parameters, memory, steps."""
    vocabulary, data = prepare(config)
    size = parameters_in_words(config.model, vocabulary)
    layout = Layout(vocabulary.pad_id, packed=True)
    memory = memory_in_words(
        config.model, config.train, vocabulary, num_frozen=int(config.reference is not None)
    )
    return f"{data.text}\n{size}\n{memory}\nsteps: {walk(config, data, layout).num_steps}"


def prepare(config: DpoConfig, cache: Path | None = None) -> tuple[Vocabulary, Prepared[EncodedPair]]:
    """Read and encode the comparisons; a tie has no chosen side and is left out."""
    if config.loss.type == "kto":
        records = labelled_of(config.data, config.seed)
    else:
        records = without_ties(comparisons_of(config.data, config.seed))
    vocabulary = load_vocabulary(config.model)
    make_encoder = make_encoder_of(
        config.data, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions, cache=cache
    )
    return vocabulary, encode_comparisons(records, make_encoder)


def walk(
    config: DpoConfig, data: Prepared[EncodedPair], layout: Layout, ranks: Ranks | None = None
) -> RowSource[EncodedPair, PairBatch]:
    """Walk the training rows as the configuration says."""
    whole = config.loss.type == "kto" or config.loss.type in NEEDS_WHOLE_BATCH  # means and orders over a step
    micro_tokens = WHOLE_STEP if whole else _micro_tokens(config)
    return walk_pairs(
        data.train, layout, config.train, micro_tokens=micro_tokens, seed=config.seed, ranks=ranks
    )


def _micro_tokens(config: DpoConfig) -> int:
    return device.micro_tokens_for(config.train.micro_tokens, device.pick_device())
