"""The order of rows, as a pure function of seed and epoch, and the source that walks it.

Nothing random is stored: position k of a run is the same whether it got there in one go or after ten restarts.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import torch

from rlhf_cli.config.sections import Train
from rlhf_cli.data.batches import AnswerBatch, Layout, PairBatch, split_by_tokens
from rlhf_cli.data.encode import EncodedPair, EncodedText
from rlhf_cli.run.ranks import Ranks

WHOLE_STEP = 2**40  # a token budget that nothing exceeds: a step is one micro-batch

R = TypeVar("R")
B = TypeVar("B")
Cut = Callable[[Sequence[R], Callable[[R], int], int, int], list[list[R]]]
"""items, the length of one, the token budget, what the number of parts is to be a multiple of -> parts."""


def epoch_order(num_rows: int, seed: int, epoch: int) -> list[int]:
    """Shuffle 0..num_rows-1 by (seed, epoch) alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(num_rows, generator=generator).tolist()


class RowSource(Generic[R, B]):
    """Walk rows in epochs and yield one optimizer step at a time, as micro-batches.

    rows        encoded rows; `length` gives the padded length of one
    collate     makes a micro-batch from rows
    cut         puts rows into micro-batches, by their lengths and the token budget
    ranks       the processes that share the micro-batches of a step
    train       batch size, and how many steps in all: `max_steps` if given, else `epochs` passes
    """

    def __init__(
        self,
        rows: Sequence[R],
        length: Callable[[R], int],
        collate: Callable[[Sequence[R]], B],
        *,
        train: Train,
        micro_tokens: int,
        seed: int,
        cut: Cut[R] = split_by_tokens,
        ranks: Ranks | None = None,
    ) -> None:
        self._rows = rows
        self._length = length
        self._collate = collate
        self._cut = cut
        self._batch_size = train.batch_size
        self._micro_tokens = micro_tokens
        self._seed = seed
        self.steps_per_epoch = math.ceil(len(rows) / train.batch_size)
        self.num_steps = (
            train.max_steps if train.max_steps is not None else train.epochs * self.steps_per_epoch
        )
        self._next_step = 0
        self._chosen: list[R] = []
        self.ranks = ranks or Ranks()
        self.num_idle = 0

    at_boundary = True  # every step may be followed by a checkpoint

    def __iter__(self) -> Iterator[Sequence[B]]:
        """Yield the micro-batches of each remaining step; the last step of an epoch may hold fewer rows."""
        epoch, order = -1, list[int]()
        while self._next_step < self.num_steps:
            step_epoch, step_in_epoch = divmod(self._next_step, self.steps_per_epoch)
            if step_epoch != epoch:
                epoch, order = step_epoch, epoch_order(len(self._rows), self._seed, step_epoch)
            chosen = order[step_in_epoch * self._batch_size : (step_in_epoch + 1) * self._batch_size]
            self._next_step += 1
            self._chosen = [self._rows[i] for i in chosen]
            yield self.again()

    def again(self) -> list[B]:
        """Give the step yielded last once more, as it is cut by now."""
        shares = self.deal(self._chosen)
        self.num_idle = sum(not counts for _, counts in shares)
        return [self._collate(part) for part, _ in shares]

    def largest(self) -> B | None:
        """Make the micro-batch that the longest rows would be in together; None after the last step."""
        if self._next_step >= self.num_steps:
            return None
        longest = heapq.nlargest(self._batch_size, self._rows, key=self._length)
        return self._collate(max(self._parts_of(longest), key=self._num_tokens))

    def shrink(self) -> bool:
        """Halve the token budget, or what one micro-batch can use of it; False where a step must stay whole."""
        if self._micro_tokens == WHOLE_STEP:
            return False
        step = self._chosen or heapq.nlargest(self._batch_size, self._rows, key=self._length)
        self._micro_tokens = min(self._micro_tokens, self._num_tokens(step)) // 2 or 1
        return True

    def _num_tokens(self, rows: Sequence[R]) -> int:
        """Count the tokens of a micro-batch, padding included."""
        return len(rows) * max(map(self._length, rows))

    def _parts_of(self, rows: Sequence[R]) -> list[list[R]]:
        if self._micro_tokens == WHOLE_STEP:
            return [[*rows[i : i + self._batch_size]] for i in range(0, len(rows), self._batch_size)]
        return self._cut(rows, self._length, self._micro_tokens, self.ranks.size)

    def deal(self, rows: Sequence[R]) -> list[tuple[list[R], bool]]:
        """Cut rows into micro-batches by the token budget, and give this process its share; see `Ranks.deal`.

        Where a step must stay whole, rows are cut into steps.
        """
        return self.ranks.deal(self._parts_of(rows))

    def turns(self, rows: Sequence[R]) -> Iterator[tuple[B, bool]]:
        """Give this process's share of the micro-batches of any rows, in turns with the others."""
        for part, counts in self.ranks.turns(self._parts_of(rows)):
            yield self._collate(part), counts

    def facts(self) -> Mapping[str, float]:
        """Say how far the walk is, in passes over the rows."""
        return {"epoch": self._next_step / self.steps_per_epoch}

    def state_dict(self) -> dict[str, object]:
        """Give the position, and the token budget, which may have been halved since."""
        return {"next_step": self._next_step, "micro_tokens": self._micro_tokens}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go to a saved position."""
        self._next_step = int(str(state["next_step"]))
        self._micro_tokens = min(self._micro_tokens, int(str(state["micro_tokens"])))


def walk_texts(
    rows: Sequence[EncodedText],
    layout: Layout,
    train: Train,
    *,
    micro_tokens: int,
    seed: int,
    ranks: Ranks | None = None,
) -> RowSource[EncodedText, AnswerBatch]:
    """Walk single rows."""
    return RowSource(
        rows,
        length=lambda row: len(row.input_ids),
        collate=layout.collate,
        train=train,
        micro_tokens=micro_tokens,
        seed=seed,
        cut=layout.cut,
        ranks=ranks,
    )


def walk_pairs(
    pairs: Sequence[EncodedPair],
    layout: Layout,
    train: Train,
    *,
    micro_tokens: int,
    seed: int,
    ranks: Ranks | None = None,
) -> RowSource[EncodedPair, PairBatch]:
    """Walk preference pairs; what counts for the token budget is a pair as it is laid out."""
    return RowSource(
        pairs,
        length=layout.length_of_pair,
        collate=layout.collate_pairs,
        train=train,
        micro_tokens=micro_tokens,
        seed=seed,
        cut=layout.cut,
        ranks=ranks,
    )
