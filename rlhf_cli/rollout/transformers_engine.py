"""Sampling with a transformers model in this process: a decode loop of our own over its key-value cache.

The longest prompts come first. Rows that are done leave the batch, and waiting prompts take their place: their keys
and values are computed in groups of similar length and moved in. Each prompt's random numbers come from its own
seed, so its completion does not depend on its neighbours (up to the rounding of the model's own arithmetic, which
varies with the shape of the batch).

Models that keep less than all keys and values (sliding windows, recurrent states) are decoded in chunks: the next
one starts when the last row of a chunk is done. Shapes vary from step to step, so on a GPU nothing is captured in a
CUDA graph.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from rlhf_cli.data.batches import split_by_tokens
from rlhf_cli.errors import DataError, Preempted
from rlhf_cli.models.decoding import attending_from_one
from rlhf_cli.models.device import Autocast
from rlhf_cli.rollout.answers import Answers
from rlhf_cli.rollout.cache import SlotCache, has_plain_cache, reserve_cache
from rlhf_cli.rollout.engine import Completion, Sampling

# Rows leave once this share of the batch is done: each departure copies what is left of the cache.
_DEPARTING_SHARE = 0.25
# Waiting prompts enter once this share of the batch is free: a larger one would leave more places empty.
_ENTERING_SHARE = 0.125
# Padded tokens of the prompts that are read at once; more make a GPU faster, and pad more.
_PROMPT_TOKENS = {"cpu": 1024, "cuda": 16384}
# How many columns beyond the longest row there are, so that rows seldom move to the front.
_SPARE_COLUMNS = 64


class TransformersEngine:
    """Sample from `model`, a causal language model (or a peft one around it).

    At most `chunk_size` rows are decoded together under `autocast()`. Prompt and completion together stay within
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

    def refresh(self, iteration: int) -> None:
        """Do nothing: the policy's own weights are what samples."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion per prompt, in order.

        Raises DataError for a prompt without room to answer, DivergedError when the model gives NaN.
        """
        if not prompts:
            return []
        limits = [self._room(prompt, sampling.max_new_tokens) for prompt in prompts]
        requests = list(zip(prompts, limits, seeds, strict=True))
        longest_first = sorted(range(len(requests)), key=lambda row: -len(prompts[row]))
        answers = Answers([requests[row] for row in longest_first], sampling, self.model.device)
        # One region for all: autocast keeps the weights it has cast until the region ends.
        quick = attending_from_one(self.model)
        with torch.no_grad(), _evaluating(self.model), _casts_kept(self.model), quick, self.autocast():
            if has_plain_cache(self.model.config):
                self._decode_in_slots(answers)
            else:
                for start in range(0, len(prompts), self.chunk_size):
                    self._decode_chunk(answers, range(start, min(start + self.chunk_size, len(prompts))))
        by_row = dict(zip(longest_first, answers.completions(), strict=True))
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

    def _decode_chunk(self, answers: Answers, chunk: range) -> None:
        """Sample the answers `chunk` to their ends; rows leave, none enters."""
        width = len(answers.prompts[chunk[0]])
        index = torch.arange(chunk.start, chunk.stop, device=self.model.device)
        starts = width - answers.prompt_lengths[index]
        cache = reserve_cache(self.model.config, width + int(answers.limits[index].max()))
        self._read(answers, index, cache)
        end = width
        while True:
            done = answers.done_mask[index]
            num_done = int(done.sum())
            if num_done == len(index):
                return
            if num_done >= _DEPARTING_SHARE * len(index):
                stay = (~done).nonzero().squeeze(1)
                index, starts = index[stay], starts[stay]
                cache.batch_select_indices(stay)
            end += 1
            self._step(answers, index, cache, _from_start(starts, 0, end))

    def _decode_in_slots(self, answers: Answers) -> None:
        """Sample all answers to their ends; waiting prompts take the places of rows that are done."""
        slots = _Slots(self.model, answers, self.chunk_size)
        while True:
            num_free = slots.num_free()
            if slots.num_waiting and num_free >= _ENTERING_SHARE * len(slots.index):
                for rows in slots.enter():
                    cache = reserve_cache(
                        self.model.config, int(answers.prompt_lengths[slots.index[rows]].max())
                    )
                    self._read(answers, slots.index[rows], cache)
                    slots.cache.put(rows, cache)
                continue
            if num_free == len(slots.index):
                return
            if num_free >= _DEPARTING_SHARE * len(slots.index):
                slots.depart()
            self._step(answers, slots.index, slots.cache.past, slots.next_column())

    def _read(self, answers: Answers, index: Tensor, cache: DynamicCache) -> None:
        """Read the prompts `index` [R], left-padded, into an empty `cache`, and sample their first tokens.

        A prompt that occurs several times is read once.
        """
        prompts = [tuple(answers.prompts[i]) for i in index.tolist()]
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        width = max(map(len, places))
        padded = [[*[self.pad_id] * (width - len(prompt)), *prompt] for prompt in places]
        lengths = torch.tensor([len(prompt) for prompt in places], device=index.device)
        mask = _from_start(width - lengths, 0, width)
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._forward(torch.tensor(padded, device=index.device), position_ids, mask, cache)
        if len(places) < len(prompts):
            copies = torch.tensor([places[prompt] for prompt in prompts], device=index.device)
            cache.batch_select_indices(copies)
            logits = logits[copies]
        answers.grow(index, logits)

    def _step(self, answers: Answers, index: Tensor, cache: DynamicCache, mask: Tensor) -> None:
        """Give the model the newest tokens of the answers `index` [R], and sample the next ones."""
        input_ids, position_ids = answers.newest(index)
        answers.grow(index, self._forward(input_ids[:, None], position_ids[:, None], mask, cache))

    def _forward(self, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Return the logits [R, V] behind the last of `input_ids` [R, t], which the cache does not have yet."""
        if self.should_stop():
            raise Preempted("interrupted while sampling")
        output = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


class _Slots:
    """The places where answers are sampled: row r holds answer `index[r]` from column `starts[r]` of the cache on."""

    def __init__(self, model: PreTrainedModel, answers: Answers, num_rows: int) -> None:
        num_answers = len(answers.prompts)
        num_rows = min(num_rows, num_answers)
        spare = _SPARE_COLUMNS if num_answers > num_rows else 0
        num_columns = len(answers.prompts[0]) + int(answers.limits.max()) + spare
        self.cache = SlotCache(model.config, num_rows, num_columns)
        self.index = torch.arange(num_rows, device=answers.limits.device)
        self.starts = torch.zeros_like(self.index)
        self._answers = answers
        self._num_entered = 0

    @property
    def num_waiting(self) -> int:
        """Count the answers that have no place yet."""
        return len(self._answers.prompts) - self._num_entered

    def num_free(self) -> int:
        """Count the rows that nobody needs."""
        return int(self._free_mask().sum())

    def _free_mask(self) -> Tensor:
        if self._num_entered == 0:
            return torch.ones_like(self.index, dtype=torch.bool)
        return self._answers.done_mask[self.index]

    def enter(self) -> Iterator[Tensor]:
        """Give free rows to the next answers; yield these rows in groups of similar length, to be filled at once."""
        free = self._free_mask().nonzero().squeeze(1)[: self.num_waiting]
        lengths = [len(self._answers.prompts[self._num_entered + i]) for i in range(len(free))]
        if len(free) == len(self.index):
            self.cache.end = lengths[0]
        self.index[free] = torch.arange(
            self._num_entered, self._num_entered + len(free), device=self.index.device
        )
        self._num_entered += len(free)
        self.starts[free] = self.cache.end - self._answers.prompt_lengths[self.index[free]]
        budget = _PROMPT_TOKENS.get(self.index.device.type, _PROMPT_TOKENS["cuda"])
        for group in split_by_tokens(range(len(free)), lengths.__getitem__, budget):
            yield free[group]
        self._show()

    def depart(self) -> None:
        """Give up the rows that are done."""
        stay = (~self._free_mask()).nonzero().squeeze(1)
        self.index, self.starts = self.index[stay], self.starts[stay]
        self.cache.select(stay)
        self._show()

    def next_column(self) -> Tensor:
        """Make room for one more column; return the mask [R, columns seen, that one included] of a step."""
        if self.cache.end == self.cache.num_columns:
            # Those that wait must find room in front of the end as well.
            longest = len(self._answers.prompts[self._num_entered]) if self.num_waiting else 0
            distance = min(self._first(), self.cache.end - longest)
            self.cache.shift(distance)
            self.starts -= distance
        self.cache.end += 1
        return _from_start(self.starts, self.cache.first, self.cache.end)

    def _show(self) -> None:
        if self.num_free() < len(self.index):
            self.cache.show(self._first())

    def _first(self) -> int:
        """Find the first column that a row still needs."""
        return int(self.starts[~self._free_mask()].min())


def _from_start(starts: Tensor, first: int, end: int) -> Tensor:
    """Mask columns `first` to `end`: True from `starts` [R] on -> [R, end - first]."""
    return torch.arange(first, end, device=starts.device) >= starts[:, None]


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


@contextmanager
def _casts_kept(model: nn.Module) -> Iterator[None]:
    """Let autocast keep the frozen weights it casts: it keeps only those of parameters that require gradients."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
