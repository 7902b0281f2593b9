"""The source of PPO batches: sample, score, measure, estimate advantages; then cut into steps.

The trainer pulls optimizer steps from it as from any other source. Between iterations its whole state is a position
and the KL coefficient.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlhf_cli.algo.ppo import adaptive_kl_coef, truncated_importance
from rlhf_cli.algo.tensors import masked_mean
from rlhf_cli.config.sections import Ppo, Rollout
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.episode import Episode, row_of
from rlhf_cli.data.loader import epoch_order
from rlhf_cli.models.actor_critic import ActorCritic
from rlhf_cli.models.parallel import gathered
from rlhf_cli.rollout.advantages import Estimator
from rlhf_cli.rollout.engine import Engine, Sampling
from rlhf_cli.rollout.episodes import sample_together, to_episodes
from rlhf_cli.rollout.measured import (
    Cutter,
    PpoBatch,
    PpoStep,
    cut_steps,
    full_row,
    measure,
    rehearsal_batch,
    sampled_logprobs,
)
from rlhf_cli.run.chance import draw

Score = Callable[[Sequence[Episode]], tuple[Tensor, dict[str, float]]]
"""N answers -> scores [N], and metrics about them."""

Scored = tuple[Episode, float]


class Experience:
    """The source of PPO batches. Prompts are walked in epochs; position alone decides every random choice."""

    def __init__(
        self,
        actors: ActorCritic,
        engine: Engine,
        score: Score,
        prompts: Sequence[EncodedPrompt],
        *,
        rollout: Rollout,
        settings: Ppo,
        num_iterations: int,
        cutter: Cutter,
        seed: int,
    ) -> None:
        self._actors, self._engine, self._score, self._prompts = actors, engine, score, prompts
        self._settings = settings
        self._batch_size, self._group_size = rollout.batch_size, rollout.samples_per_prompt
        self._estimate = Estimator(settings, rollout.samples_per_prompt)
        # Another engine samples from a slightly other distribution than the one that is trained.
        self._corrects = rollout.engine != "transformers"
        self._importance_cap = rollout.importance_cap
        self._cutter = cutter
        self._seed = seed
        self._ranks = cutter.ranks
        stop_ids = actors.policy.vocabulary.stop_ids
        self._sampling = Sampling(rollout.temperature, 1.0, rollout.max_new_tokens, stop_ids)
        self._num_iterations = num_iterations
        self.num_steps = num_iterations * settings.epochs * settings.minibatches
        self._iteration = 0
        self._num_pending = 0
        self._kl_coef = settings.kl.coef
        self._facts: dict[str, float] = {}
        self._cut: Callable[[], list[PpoStep]] = list
        self._steps: list[PpoStep] = []
        self._number = self.num_idle = 0

    @property
    def at_boundary(self) -> bool:
        """Say whether every minibatch of the iteration is used up."""
        return self._num_pending == 0

    @property
    def step(self) -> int:
        """Count the optimizer steps of the iterations done."""
        return self._iteration * self._settings.epochs * self._settings.minibatches

    def __iter__(self) -> Iterator[Sequence[PpoBatch]]:
        """Yield the optimizer steps of all remaining iterations."""
        while self._iteration < self._num_iterations:
            self._cut = self._next_iteration()
            self._steps = self._cut()
            for number in range(len(self._steps)):
                self._number = number
                self._num_pending = len(self._steps) - number - 1
                self._iteration += self._num_pending == 0
                yield self.again()

    def again(self) -> Sequence[PpoBatch]:
        """Give the step yielded last once more, as it is cut by now."""
        step = self._steps[self._number]
        self.num_idle = step.num_idle
        return step.batches

    def largest(self) -> PpoBatch | None:
        """Make up the largest micro-batch that can come: the longest prompts with answers of full length."""
        if self._iteration >= self._num_iterations:
            return None
        num_prompts = self._batch_size // self._group_size
        longest = heapq.nlargest(num_prompts, self._prompts, key=lambda prompt: len(prompt.input_ids))
        rows = [
            full_row(prompt, self._sampling.max_new_tokens)
            for prompt in longest
            for _ in range(self._group_size)
        ]
        return rehearsal_batch(rows, self._cutter, with_values=self._actors.critic is not None)

    def shrink(self) -> bool:
        """Halve the token budget, or what one micro-batch can use of it."""
        rehearsed = self.largest()
        batches = [batch for step in self._steps for batch in step.batches]
        batches += [rehearsed] if rehearsed else []
        (most,) = self._ranks.most([max(batch.answers.inputs["input_ids"].numel() for batch in batches)])
        budget = min(self._cutter.micro_tokens, most) // 2 or 1
        self._cutter = replace(self._cutter, micro_tokens=budget)
        self._steps = self._cut()
        return True

    def _next_iteration(self) -> Callable[[], list[PpoStep]]:
        """Sample, score, measure, estimate advantages; give what cuts that into optimizer steps."""
        episodes = self._sample(*self._draw_prompts(), group_size=self._group_size)
        scores, facts = self._score(episodes)
        measured = measure(self._actors, [row_of(episode) for episode in episodes], self._cutter)
        estimate = self._estimate(
            scores,
            measured.logprobs,
            measured.reference_logprobs,
            measured.values,
            measured.mask,
            self._kl_coef,
        )
        mismatch = (measured.logprobs - sampled_logprobs(episodes, measured.mask)) * measured.mask
        if self._corrects:
            weights = truncated_importance(mismatch, cap=self._importance_cap)
            estimate = replace(estimate, advantages=estimate.advantages * weights)
        self._facts = {
            **facts,
            "rollout_mismatch": float(masked_mean(mismatch.abs(), measured.mask)),
            "rollout_mismatch_max": float(mismatch.abs().max()),
            "kl": measured.kl,
            "kl_coef": self._kl_coef,
            "entropy": float(masked_mean(measured.entropy, measured.mask)),
            **estimate.facts,
        }
        self._adapt_kl(measured.kl)
        minibatches = list(self._minibatches())
        return lambda: cut_steps(
            measured,
            estimate,
            minibatches=minibatches,
            cutter=self._cutter,
            has_own_critic=self._actors.has_own_critic,
        )

    def _draw_prompts(self) -> tuple[list[EncodedPrompt], list[int]]:
        """Take the next prompts of the endless walk, each as often as it is answered, and a seed for each answer.

        The k-th answer of a run always has the k-th seed.
        """
        num_prompts, size = len(self._prompts), self._group_size
        first = self._iteration * self._batch_size
        positions = [divmod(k // size, num_prompts) for k in range(first, first + self._batch_size)]
        orders = {epoch: epoch_order(num_prompts, self._seed, epoch) for epoch, _ in positions}
        seeds = [draw(self._seed, "train", first + i) for i in range(self._batch_size)]
        return [self._prompts[orders[epoch][place]] for epoch, place in positions], seeds

    def _sample(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int], *, group_size: int
    ) -> list[Episode]:
        policy = self._actors.policy
        with gathered(policy.model):
            self._engine.refresh(self._iteration)
            completions = sample_together(
                self._engine, prompts, self._sampling, seeds, group_size=group_size, ranks=self._ranks
            )
        return to_episodes(policy.vocabulary.tokenizer, prompts, completions, self._sampling.stop_ids)

    def _adapt_kl(self, observed_kl: float) -> None:
        kl = self._settings.kl
        if kl.target is not None:
            self._kl_coef = adaptive_kl_coef(
                self._kl_coef, observed_kl, kl.target, kl.horizon, self._batch_size
            )

    def _minibatches(self) -> Iterator[list[int]]:
        """Give the answers of each minibatch; every epoch of every iteration has an order of its own.

        Answers to one prompt stay together, so that it is computed once.
        """
        size = self._group_size
        for epoch in range(self._settings.epochs):
            walk = self._iteration * self._settings.epochs + epoch
            groups = torch.tensor(epoch_order(self._batch_size // size, self._seed, walk))
            for part in groups.tensor_split(self._settings.minibatches):
                yield [group * size + k for group in part.tolist() for k in range(size)]

    def evaluate(self, prompts: Sequence[EncodedPrompt]) -> tuple[dict[str, float], list[Scored]]:
        """Sample held-out prompts, with the same seeds each time -> reward, KL, length and EOS rate; the answers."""
        seeds = [draw(self._seed, "eval", k) for k in range(len(prompts))]
        episodes = self._sample(prompts, seeds, group_size=1)
        scores, facts = self._score(episodes)
        measured = measure(self._actors, [row_of(episode) for episode in episodes], self._cutter)
        scored = list(zip(episodes, scores.tolist(), strict=True))
        return facts | {"kl": measured.kl}, scored

    def facts(self) -> Mapping[str, float]:
        """Give what was seen of the latest iteration."""
        return self._facts | {"iteration": float(self._iteration)}

    def state_dict(self) -> dict[str, object]:
        """Give the position, the KL coefficient and the token budget; all else follows from the position."""
        return {
            "iteration": self._iteration,
            "kl_coef": self._kl_coef.hex(),
            "facts": self._facts,
            "micro_tokens": self._cutter.micro_tokens,
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go to a saved position."""
        self._num_pending = 0
        self._iteration = int(str(state["iteration"]))
        self._kl_coef = float.fromhex(str(state["kl_coef"]))
        facts = state["facts"]
        assert isinstance(facts, dict)
        self._facts = facts
        budget = min(self._cutter.micro_tokens, int(str(state["micro_tokens"])))
        self._cutter = replace(self._cutter, micro_tokens=budget)
