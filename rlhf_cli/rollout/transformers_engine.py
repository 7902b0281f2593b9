"""Sampling with a transformers model in this process: a decode loop of our own over its key-value cache.

Prompts of similar length are decoded together, left-padded; rows that are done leave the batch. Each prompt's
random numbers come from its own seed, so its completion does not depend on its neighbours (up to the rounding
of the model's own arithmetic, which varies with the shape of the batch).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.errors import DataError, DivergedError, Preempted
from rlhf_cli.models.device import Autocast
from rlhf_cli.rollout.cache import reserve_cache
from rlhf_cli.rollout.engine import Completion, Sampling
from rlhf_cli.rollout.sampling import draw_uniforms, sample_tokens

# Rows leave once this share of the batch is done: each departure copies what is left of the cache.
_DEPARTING_SHARE = 0.25
_NO_TOKEN = -1


class TransformersEngine:
    """Sample from `model`, a causal language model (or a peft one around it).

    `chunk_size` rows are decoded together under `autocast()`. Prompt and completion together stay within
    `max_positions` tokens: a completion that would not is cut there, unfinished. `should_stop` is asked
    before every token; once it says yes, `generate` raises Preempted.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        *,
        chunk_size: int,
        autocast: Autocast,
        max_positions: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model = model
        self.pad_id = pad_id
        self.chunk_size = chunk_size
        self.autocast = autocast
        self.max_positions = max_positions
        self.should_stop = should_stop

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion per prompt, in order.

        Raises DataError for a prompt without room to answer, DivergedError when the model gives NaN.
        """
        limits = [self._room(prompt, sampling.max_new_tokens) for prompt in prompts]
        uniforms = [
            draw_uniforms(seed, sampling.max_new_tokens) for _, seed in zip(prompts, seeds, strict=True)
        ]
        longest_first = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        by_row: dict[int, Completion] = {}
        with torch.no_grad(), _evaluating(self.model):
            for start in range(0, len(prompts), self.chunk_size):
                rows = longest_first[start : start + self.chunk_size]
                chunk = self._open([(prompts[row], limits[row], uniforms[row]) for row in rows])
                # One region per chunk: autocast keeps the weights it has cast until the region ends.
                with self.autocast():
                    by_row.update(zip(rows, self._decode(chunk, sampling), strict=True))
        return [by_row[row] for row in range(len(prompts))]

    def _room(self, prompt: Sequence[int], max_new_tokens: int) -> int:
        """Return how many tokens may follow `prompt`, at least 1."""
        if not prompt:
            raise DataError(
                "an empty prompt cannot be answered", fix="Drop it, or begin it with a BOS token."
            )
        if self.max_positions is None:
            return max_new_tokens
        room = self.max_positions - len(prompt)
        if room < 1:
            raise DataError(
                f"a prompt of {len(prompt)} tokens leaves no room to answer: "
                f"the model reads {self.max_positions} tokens",
                fix="Shorten or drop such prompts.",
            )
        return min(room, max_new_tokens)

    def _open(self, rows: Sequence[tuple[Sequence[int], int, Tensor]]) -> "_Rows":
        """Left-pad (prompt, limit, uniforms) triples into the state the loop starts from."""
        width = max(len(prompt) for prompt, _, _ in rows)
        num_new = max(limit for _, limit, _ in rows)
        input_ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.ones(len(rows), width + num_new, dtype=torch.bool)
        for row, (prompt, _, _) in enumerate(rows):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, : width - len(prompt)] = False
        limits = torch.tensor([limit for _, limit, _ in rows])
        uniforms = torch.stack([uniforms[:num_new] for _, _, uniforms in rows])
        position_ids = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
        tensors = (torch.arange(len(rows)), input_ids, position_ids, mask, limits, uniforms)
        return _Rows(*(tensor.to(self.model.device) for tensor in tensors))

    def _decode(self, rows: "_Rows", sampling: Sampling) -> list[Completion]:
        """Sample until every row is done."""
        width, limits = rows.input_ids.shape[1], rows.limits
        stop_ids = torch.tensor(sampling.stop_ids, device=limits.device, dtype=torch.long)
        tokens = torch.full_like(rows.uniforms, _NO_TOKEN, dtype=torch.long)
        logprobs = torch.zeros_like(rows.uniforms)
        cache = reserve_cache(self.model.config, width + tokens.shape[1])
        for step in range(tokens.shape[1]):
            if self.should_stop():
                raise Preempted("interrupted while sampling")
            logits = self.model(
                input_ids=rows.input_ids,
                position_ids=rows.position_ids,
                attention_mask=rows.mask[:, : width + step],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            sampled, logprob = sample_tokens(logits, rows.uniforms[:, step], sampling)
            tokens[rows.index, step] = sampled
            logprobs[rows.index, step] = logprob
            num_done = rows.advance(sampled, torch.isin(sampled, stop_ids) | (rows.limits <= step + 1))
            if num_done == len(rows.index):
                break
            if num_done >= _DEPARTING_SHARE * len(rows.index):
                cache.batch_select_indices(rows.depart())
        return _completions(tokens, logprobs, stop_ids, limits)


@dataclass
class _Rows:
    """The rows being decoded: R of them, P prompt columns, up to N new ones."""

    index: Tensor  # [R] place in the chunk
    input_ids: Tensor  # [R, P], then [R, 1]: the tokens the cache does not have yet
    position_ids: Tensor  # as input_ids
    mask: Tensor  # [R, P + N] False on padding
    limits: Tensor  # [R] tokens that may be sampled
    uniforms: Tensor  # [R, N]

    def __post_init__(self) -> None:
        self.done = torch.zeros_like(self.index, dtype=torch.bool)

    def advance(self, sampled: Tensor, ended: Tensor) -> int:
        """Make `sampled` [R] the next input; return how many rows are done, those in `ended` [R] too."""
        self.done |= ended
        self.input_ids = sampled[:, None]
        # A done row stays where it is until it leaves: the position after its last may not exist.
        self.position_ids = self.position_ids[:, -1:] + ~self.done[:, None]
        return int(self.done.sum())

    def depart(self) -> Tensor:
        """Drop the rows that are done; return the indices [R'] of those that stay."""
        stay = (~self.done).nonzero().squeeze(1)
        self.index, self.done = self.index[stay], self.done[stay]
        self.input_ids, self.position_ids, self.mask = (
            self.input_ids[stay],
            self.position_ids[stay],
            self.mask[stay],
        )
        self.limits, self.uniforms = self.limits[stay], self.uniforms[stay]
        return stay


def _completions(tokens: Tensor, logprobs: Tensor, stop_ids: Tensor, limits: Tensor) -> list[Completion]:
    """Cut tokens and logprobs [R, N] behind the first stop token, or at the row's limit."""
    if not logprobs.isfinite().all():
        raise DivergedError("the model's log-probabilities are not finite numbers")
    stops = torch.isin(tokens, stop_ids)
    finished = stops.any(-1)
    lengths = torch.where(finished, stops.int().argmax(-1) + 1, limits)
    finished &= lengths <= limits
    lengths = lengths.minimum(limits)
    columns = (tokens.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist())
    return [
        Completion(token_ids=tuple(ids[:length]), logprobs=tuple(values[:length]), finished=closed)
        for ids, values, length, closed in zip(*columns, strict=True)
    ]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch `model` to eval mode, and back, module by module, on the way out."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
