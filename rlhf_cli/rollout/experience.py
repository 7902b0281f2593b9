"""The source of PPO batches: sample, score, measure, shape rewards, estimate advantages; then cut into steps.

The trainer pulls optimizer steps from it as from any other source. Between iterations its whole state is a position
and the KL coefficient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from rlhf_cli.algo import ppo as algo
from rlhf_cli.algo.tensors import masked_mean, whiten
from rlhf_cli.config.sections import Ppo, Rollout
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.episode import Episode, row_of
from rlhf_cli.data.loader import epoch_order
from rlhf_cli.models.actor_critic import ActorCritic
from rlhf_cli.rollout.engine import Engine, Sampling
from rlhf_cli.rollout.episodes import sample_episodes
from rlhf_cli.rollout.measured import PpoBatch, cut_steps, measure
from rlhf_cli.run.chance import draw

Score = Callable[[Sequence[Episode]], tuple[Tensor, dict[str, float]]]
"""N answers -> scores [N], and metrics about them."""


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
        micro_tokens: int,
        seed: int,
    ) -> None:
        self._actors, self._engine, self._score, self._prompts = actors, engine, score, prompts
        self._settings = settings
        self._batch_size = rollout.batch_size
        self._micro_tokens = micro_tokens
        self._seed = seed
        stop_ids = actors.policy.vocabulary.stop_ids
        self._sampling = Sampling(rollout.temperature, 1.0, rollout.max_new_tokens, stop_ids)
        self._num_iterations = num_iterations
        self.num_steps = num_iterations * settings.epochs * settings.minibatches
        self._iteration = 0
        self._num_pending = 0
        self._kl_coef = settings.kl.coef
        self._facts: dict[str, float] = {}

    @property
    def at_boundary(self) -> bool:
        """Say whether every minibatch of the iteration is used up."""
        return self._num_pending == 0

    def __iter__(self) -> Iterator[Sequence[PpoBatch]]:
        """Yield the optimizer steps of all remaining iterations."""
        while self._iteration < self._num_iterations:
            steps = self._next_iteration()
            for number, step in enumerate(steps, start=1):
                self._num_pending = len(steps) - number
                self._iteration += self._num_pending == 0
                yield step

    def _next_iteration(self) -> list[list[PpoBatch]]:
        """Sample, score, measure, shape rewards, estimate advantages; cut into optimizer steps."""
        settings = self._settings
        episodes = self._sample(*self._draw_prompts())
        scores, facts = self._score(episodes)
        measured = measure(self._actors, [row_of(episode) for episode in episodes], self._micro_tokens)
        mask, values = measured.mask, measured.values
        rewards = algo.shaped_rewards(
            scores, measured.logprobs, measured.reference_logprobs, mask, self._kl_coef
        )
        advantages, returns = algo.gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
        if settings.whiten:
            advantages = whiten(advantages, mask)
        self._facts = facts | {
            "kl": measured.kl,
            "kl_coef": self._kl_coef,
            "entropy": float(masked_mean(measured.entropy, mask)),
            "explained_variance": float(algo.explained_variance(values, returns, mask)),
        }
        self._adapt_kl(measured.kl)
        return cut_steps(
            self._actors,
            measured,
            advantages,
            returns,
            minibatches=self._minibatches(len(episodes)),
            micro_tokens=self._micro_tokens,
        )

    def _draw_prompts(self) -> tuple[list[EncodedPrompt], list[int]]:
        """Take the next prompts of the endless walk; the k-th sample of a run always has the k-th seed."""
        first, num_prompts = self._iteration * self._batch_size, len(self._prompts)
        positions = [divmod(k, num_prompts) for k in range(first, first + self._batch_size)]
        orders = {epoch: epoch_order(num_prompts, self._seed, epoch) for epoch, _ in positions}
        seeds = [draw(self._seed, "train", first + i) for i in range(self._batch_size)]
        return [self._prompts[orders[epoch][place]] for epoch, place in positions], seeds

    def _sample(self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]) -> list[Episode]:
        tokenizer = self._actors.policy.vocabulary.tokenizer
        return sample_episodes(self._engine, tokenizer, prompts, self._sampling, seeds)

    def _adapt_kl(self, observed_kl: float) -> None:
        kl = self._settings.kl
        if kl.target is not None:
            num_samples = self._batch_size
            self._kl_coef = algo.adaptive_kl_coef(
                self._kl_coef, observed_kl, kl.target, kl.horizon, num_samples
            )

    def _minibatches(self, num_episodes: int) -> Iterator[list[int]]:
        """Give the episode indices of each minibatch; every epoch of every iteration has an order of its own."""
        for epoch in range(self._settings.epochs):
            walk = self._iteration * self._settings.epochs + epoch
            order = torch.tensor(epoch_order(num_episodes, self._seed, walk))
            yield from (part.tolist() for part in order.tensor_split(self._settings.minibatches))

    def evaluate(self, prompts: Sequence[EncodedPrompt]) -> dict[str, float]:
        """Sample held-out prompts, with the same seeds each time, and measure reward, KL, length and EOS rate."""
        seeds = [draw(self._seed, "eval", k) for k in range(len(prompts))]
        episodes = self._sample(prompts, seeds)
        _, facts = self._score(episodes)
        measured = measure(self._actors, [row_of(episode) for episode in episodes], self._micro_tokens)
        return facts | {"kl": measured.kl}

    def facts(self) -> Mapping[str, float]:
        """Give what was seen of the latest iteration."""
        return self._facts | {"iteration": float(self._iteration)}

    def state_dict(self) -> dict[str, object]:
        """Give the position and the KL coefficient; sampling, orders and seeds follow from the position."""
        return {"iteration": self._iteration, "kl_coef": self._kl_coef.hex(), "facts": self._facts}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go to a saved position."""
        self._iteration = int(str(state["iteration"]))
        self._kl_coef = float.fromhex(str(state["kl_coef"]))
        facts = state["facts"]
        assert isinstance(facts, dict)
        self._facts = facts
