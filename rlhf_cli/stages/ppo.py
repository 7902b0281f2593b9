"""`rlhf ppo`: proximal policy optimisation against a reward (Schulman et al. 2017; Ziegler et al. 2019).

This PPO: separate actor and critic, the critic starting as the reward model with its head; k1 KL penalty per
token inside the reward, the score on the last token; GAE; advantages whitened over the whole batch; clipped
policy and value losses; every minibatch is one optimizer step. Dropout is off and the temperature is in the old
and the new log-probs alike, so the first ratio of each iteration is 1. `ppo.advantage` replaces the critic by a
comparison of answers (RLOO, GRPO, REINFORCE++); the rest stays as it is, with losses averaged over tokens.

It trains in the same loop as every stage: `Experience` is a batch source that, whenever it is empty, samples,
scores and measures the next iteration, then yields epochs x minibatches of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.algo import ppo as algo
from rlhf_cli.algo.metrics import correlation
from rlhf_cli.config.sections import Ppo
from rlhf_cli.config.stages import PpoConfig
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.episode import Episode
from rlhf_cli.data.prepare import Prepared, encode_prompts, make_encoder_of, prompts_of
from rlhf_cli.errors import DivergedError
from rlhf_cli.models.actor_critic import ActorCritic
from rlhf_cli.models.estimate import memory_in_words
from rlhf_cli.models.load import Vocabulary, load_vocabulary, open_policy, parameters_in_words
from rlhf_cli.models.parallel import save_together
from rlhf_cli.reward.scorer import Scorer, combine
from rlhf_cli.rollout.experience import Experience
from rlhf_cli.rollout.measured import PpoBatch, to_columns
from rlhf_cli.run.metrics import Mean
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.distributions import record_answers
from rlhf_cli.stages.ppo_setup import choose_cutter, open_engine, open_models, open_scorers, share_out_all
from rlhf_cli.training.loop import Cadence, Trainer
from rlhf_cli.training.optim import Role, Updater
from rlhf_cli.training.parts import Loss

_RATIO_TOLERANCE = 1e-2
_ANSWERS_SHOWN = 4


def run(config: PpoConfig, run: Run) -> StageResult:
    """Train the policy on the rewards of its own answers and write it to the run."""
    with run.ranks.leader_first():
        vocabulary, data = prepare(config)
    data.publish(run)
    actors, rewards = open_models(config, vocabulary, run)
    cutter = choose_cutter(config, run, actors, rewards, data)
    share_out_all(config, actors, rewards, run)
    experience = Experience(
        actors,
        open_engine(config, actors, data.train, run),
        Scoring(open_scorers(config, actors, rewards, run), config.ppo, actors.policy.device),
        data.train,
        rollout=config.rollout,
        settings=config.ppo,
        num_iterations=num_iterations(config, len(data.train)),
        cutter=cutter,
        seed=config.seed,
    )
    roles = [Role("policy", actors.policy.model, config.optim.lr)]
    if actors.critic is not None:
        roles.append(Role("critic", actors.critic, config.critic.lr or config.optim.lr))
    learner = Learner(actors, config.ppo, experience, data.eval[: config.eval.max_rows], run.dir.answers)
    updater = Updater(roles, config.optim, experience.num_steps, run.ranks)
    trainer = Trainer(
        run,
        experience,
        learner,
        updater,
        Cadence.of(config.log, config.eval, config.checkpoint),
        may_recompute=actors.trained_cores if config.train.gradient_checkpointing == "auto" else (),
    )
    metrics = trainer.fit()
    save_together(actors.policy, run, lambda: open_policy(config.model, vocabulary, config.seed))
    return StageResult(run.dir.model, experience.num_steps, metrics)


@dataclass(frozen=True)
class Scoring:
    """The reward of whole answers: the weighted sum of all scorers, clipped."""

    scorers: Sequence[tuple[Scorer, float]]
    settings: Ppo
    device: torch.device

    def __call__(self, episodes: Sequence[Episode]) -> tuple[Tensor, dict[str, float]]:
        """Score N answers -> [N]; one that never ended gets `missing_eos_score` instead of what it earned."""
        totals, by_name = combine(self.scorers, episodes)
        finished = torch.tensor([episode.finished for episode in episodes])
        limit = self.settings.score_clip
        scores = torch.tensor(totals).clamp(-limit, limit)
        scores = torch.where(finished, scores, self.settings.missing_eos_score)
        lengths = torch.tensor([float(len(episode.completion_ids)) for episode in episodes])
        facts = {
            "reward": float(scores.mean()),
            "eos_rate": float(finished.float().mean()),
            "length": float(lengths.mean()),
            "length_correlation": correlation(scores, lengths),
        }
        facts |= {f"score/{name}": sum(column) / len(column) for name, column in by_name.items()}
        return scores.to(self.device), facts


@dataclass(frozen=True)
class Learner:
    """The clipped losses of actor and critic."""

    actors: ActorCritic
    settings: Ppo
    experience: Experience
    held_out: Sequence[EncodedPrompt]
    answers: Path

    def objective(self, batch: PpoBatch) -> Loss:
        """Sum the losses over the response tokens of a micro-batch.

        Its weight is their number, counted once: a critic of its own sees the same tokens.
        """
        answers, num_tokens = batch.answers, int(batch.mask.sum())
        if batch.trains == "critic":
            values = self.actors.values(answers.inputs, answers.predictor_index)
            losses, sums = self._value_losses(values, batch)
            return Loss(losses.sum(), 0.0, _means(sums, num_tokens))
        judged = self.actors.judge(answers.inputs, answers.predictor_index, answers.target_ids)
        losses, sums = self._policy_losses(judged.logprobs, batch)
        if judged.values is not None:
            value_losses, value_sums = self._value_losses(judged.values, batch)
            losses, sums = losses + value_losses, sums | value_sums
        return Loss(losses.sum(), num_tokens, _means(sums, num_tokens), answers.num_read)

    def _policy_losses(self, flat_logprobs: Tensor, batch: PpoBatch) -> tuple[Tensor, dict[str, Tensor]]:
        mask, logprobs = batch.mask, to_columns(flat_logprobs, batch.mask)
        self._check_first_ratio(batch, logprobs.detach())
        losses, clipped = algo.clipped_policy_loss(
            logprobs, batch.logprobs, batch.advantages, mask, clip=self.settings.clip
        )
        sums = {
            "policy_loss": losses,
            "clip_fraction": clipped & mask,
            "step_kl": algo.kl_k3(batch.logprobs, logprobs.detach(), mask),
        }
        if batch.loss_kl_coef:
            losses = losses + batch.loss_kl_coef * algo.kl_k3(logprobs, batch.reference_logprobs, mask)
        return losses, sums

    def _value_losses(self, flat_values: Tensor, batch: PpoBatch) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.values is not None
        assert batch.returns is not None
        values = to_columns(flat_values, batch.mask)
        losses, clipped = algo.clipped_value_loss(
            values, batch.values, batch.returns, batch.mask, clip=self.settings.value_clip
        )
        sums = {"value_loss": losses, "value_clip_fraction": clipped & batch.mask}
        return self.settings.value_coef * losses, sums

    def rows(self, batch: PpoBatch) -> Sequence[str]:
        """Name the answers of a micro-batch."""
        return batch.answers.origins

    def evaluate(self) -> Mapping[str, float]:
        """Measure reward, KL, length and EOS rate on the held-out prompts, with the same seeds each time."""
        if not self.held_out:
            return {}
        facts, answers = self.experience.evaluate(self.held_out)
        record_answers(self.answers, self.experience.step, answers[:_ANSWERS_SHOWN])
        return facts

    def _check_first_ratio(self, batch: PpoBatch, logprobs: Tensor) -> None:
        if not (batch.first and self.actors.exact):
            return
        error = float((logprobs - batch.logprobs)[batch.mask].exp().sub(1).abs().max())
        if error > _RATIO_TOLERANCE:
            raise DivergedError(
                f"the first probability ratio of an iteration is off 1 by {error:.1e}",
                where="train.precision",
                fix="the model does not give the same log-probs twice; look for dropout or other randomness in it",
            )


def _means(sums: Mapping[str, Tensor], weight: int) -> dict[str, Mean]:
    return {name: Mean(float(column.detach().sum()), weight) for name, column in sums.items()}


def num_iterations(config: PpoConfig, num_prompts: int) -> int:
    """Count the iterations: what `ppo.iterations` and `train.max_steps` both allow, else `train.epochs`.

    An iteration is done whole, so the last one may pass `train.max_steps`.
    """
    limits = [config.ppo.iterations] if config.ppo.iterations is not None else []
    if config.train.max_steps is not None:
        limits.append(math.ceil(config.train.max_steps / (config.ppo.epochs * config.ppo.minibatches)))
    num_answers = num_prompts * config.rollout.samples_per_prompt
    return min(limits) if limits else math.ceil(config.train.epochs * num_answers / config.rollout.batch_size)


def plan(config: PpoConfig) -> str:
    """Say what a run would do: data, parameters, memory, iterations, steps."""
    vocabulary, data = prepare(config)
    iterations = num_iterations(config, len(data.train))
    steps = iterations * config.ppo.epochs * config.ppo.minibatches
    return (
        f"{data.text}\n{parameters_in_words(config.model, vocabulary)}; {critic_in_words(config)}\n"
        f"{memory_of(config, vocabulary)}\n"
        f"iterations: {iterations} of {config.rollout.batch_size} answers, {steps} optimizer steps"
    )


def memory_of(config: PpoConfig, vocabulary: Vocabulary) -> str:
    """Say how much memory training will take: policy, critic, reference and reward models, as if of one size."""
    own_critic = config.ppo.advantage == "gae" and config.critic.share != "trunk"
    num_rewards = sum(source.kind == "model" for source in config.reward)
    return memory_in_words(
        config.model,
        config.train,
        vocabulary,
        num_trained=1 + own_critic,
        num_frozen=1 + num_rewards,
    )


def critic_in_words(config: PpoConfig) -> str:
    """Say what estimates values."""
    if config.ppo.advantage != "gae":
        return "no critic"
    return "the critic is a " + (
        "head on the policy" if config.critic.share == "trunk" else "model of its own"
    )


def prepare(config: PpoConfig) -> tuple[Vocabulary, Prepared[EncodedPrompt]]:
    """Read and encode the prompts; an answer of full length must fit behind each."""
    records = prompts_of(config.data, config.seed)
    vocabulary = load_vocabulary(config.model)
    make_encoder = make_encoder_of(
        config.data, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions
    )
    return vocabulary, encode_prompts(records, make_encoder, room_for_answer=config.rollout.max_new_tokens)
