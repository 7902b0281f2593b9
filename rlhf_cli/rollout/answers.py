"""The answers to Q prompts while they grow, in any order and at any pace."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_cli.errors import DivergedError
from rlhf_cli.rollout.engine import Completion, Sampling
from rlhf_cli.rollout.sampling import draw_uniforms, sample_tokens

_NO_TOKEN = -1


class Answers:
    """What Q `prompts` are answered so far: `counts` [Q] tokens each, `done_mask` [Q] where no more are wanted.

    `requests` has for each its prompt; the most tokens it may have, at least 1 and at most
    `sampling.max_new_tokens`; and the seed that decides its every random number.
    """

    def __init__(
        self, requests: Sequence[tuple[Sequence[int], int, int]], sampling: Sampling, device: torch.device
    ) -> None:
        prompts, limits, seeds = zip(*requests, strict=True)
        self.prompts: Sequence[Sequence[int]] = prompts
        self._sampling = sampling
        num_answers, self._width = len(prompts), max(limits)
        self.prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.limits = torch.tensor(limits, device=device)
        self.counts = torch.zeros(num_answers, dtype=torch.long, device=device)
        self.done_mask = torch.zeros(num_answers, dtype=torch.bool, device=device)
        self._stop_ids = torch.tensor(sampling.stop_ids, dtype=torch.long, device=device)
        self._uniforms = torch.zeros(num_answers, self._width)
        for row, seed in zip(self._uniforms, seeds, strict=True):
            row.copy_(draw_uniforms(seed, sampling.max_new_tokens)[: self._width])
        self._uniforms = self._uniforms.to(device)
        # The last column takes what is sampled for answers that are done.
        self._tokens = torch.full((num_answers, self._width + 1), _NO_TOKEN, device=device)
        self._logprobs = torch.zeros(num_answers, self._width + 1, device=device)

    def grow(self, index: Tensor, logits: Tensor) -> None:
        """Sample one more token of the answers `index` [R] from `logits` [R, V], but for those that are done."""
        counts, done = self.counts[index], self.done_mask[index]
        uniforms = self._uniforms[index, counts.clamp(max=self._width - 1)]
        sampled, logprobs = sample_tokens(logits, uniforms, self._sampling)
        column = counts.where(~done, self._width)
        self._tokens[index, column], self._logprobs[index, column] = sampled, logprobs
        counts = counts + ~done
        self.counts[index] = counts
        self.done_mask[index] = done | torch.isin(sampled, self._stop_ids) | (counts >= self.limits[index])

    def newest(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Give the newest token of the answers `index` [R], which have one, and its position in the row: both [R].

        The position after it may not exist where an answer is done.
        """
        places = self.counts[index] - 1
        return self._tokens[index, places], self.prompt_lengths[index] + places

    def completions(self) -> list[Completion]:
        """Give all answers in order. Raises DivergedError where a log-probability is no finite number."""
        if not self._logprobs.isfinite().all():
            raise DivergedError("the model's log-probabilities are not finite numbers")
        last = self._tokens.gather(1, self.counts[:, None] - 1).squeeze(1)
        finished = torch.isin(last, self._stop_ids)
        columns = (self._tokens.tolist(), self._logprobs.tolist(), self.counts.tolist(), finished.tolist())
        return [
            Completion(token_ids=tuple(ids[:count]), logprobs=tuple(values[:count]), finished=closed)
            for ids, values, count, closed in zip(*columns, strict=True)
        ]
