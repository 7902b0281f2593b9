"""What every evaluation needs: rows of a data set as a model reads them, and intervals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rlhf_cli.algo.agreement import bootstrap_interval
from rlhf_cli.config.sections import Data, Source
from rlhf_cli.data.batches import TokenBatch, collate, split_by_tokens
from rlhf_cli.data.encode import EncodedText, Encoder
from rlhf_cli.data.files import Reading
from rlhf_cli.errors import DataError
from rlhf_cli.models.device import micro_tokens_for
from rlhf_cli.models.load import LoadedModel, Vocabulary
from rlhf_cli.models.scoring import labelled_logprobs, row_of_label

R = TypeVar("R")
E = TypeVar("E")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where there is too little to tell."""

    value: float
    low: float | None
    high: float | None

    def in_words(self, digits: str = ".4g") -> str:
        """Write the number, and the interval in brackets."""
        if self.low is None or self.high is None:
            return format(self.value, digits)
        return f"{self.value:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"


def ratio(parts: Tensor, seed: int = 0) -> Estimate:
    """Estimate sum(parts[:, 0]) / sum(parts[:, 1]) over rows [N, 2]; the interval resamples rows."""
    total = parts.double().sum(0)
    interval = bootstrap_interval(_ratio, parts, torch.arange(len(parts)), seed=seed)
    low, high = interval or (None, None)
    return Estimate(float(total[0] / total[1]), low, high)


def _ratio(total: Tensor) -> float | None:
    return float(total[0] / total[1]) if total[1] > 0 else None


def read_each(
    paths: Sequence[str], read: Callable[..., Reading[R]], limit: int | None
) -> list[tuple[str, list[R]]]:
    """Read each source by itself, its name first."""
    return [(path, read([Source(path=path, limit=limit)], on_bad_row="skip").records) for path in paths]


def encoder_of(vocabulary: Vocabulary, *, template: str = "auto", max_length: int | None = None) -> Encoder:
    """Make an encoder that cuts at what the model reads, or earlier."""
    longest = Data.model_fields["max_length"].default
    limit = min(max_length or vocabulary.max_positions or longest, vocabulary.max_positions or 2**31)
    return Encoder(vocabulary.tokenizer, stop_ids=vocabulary.stop_ids, template=template, max_length=limit)


def require_rows(rows: Sequence[E], path: str, encoder: Encoder) -> Sequence[E]:
    """Raise DataError where nothing is left to measure on."""
    if not rows:
        reasons = "; ".join(f"{n} {name}" for name, n in encoder.tally.counts.items() if n)
        raise DataError(f"no row of {path} is left to measure on ({reasons or 'none was read'})", where=path)
    return rows


def batches_of(
    rows: Sequence[EncodedText], loaded: LoadedModel, budget: int | None = None
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Yield padded micro-batches of rows of similar length, each with the places of its rows."""
    budget = budget or micro_tokens_for("auto", loaded.device)
    for places in split_by_tokens(range(len(rows)), lambda i: len(rows[i].input_ids), budget):
        yield (
            list(places),
            collate([rows[i] for i in places], loaded.vocabulary.pad_id).to(loaded.device),
        )


@torch.no_grad()
def row_logprobs(loaded: LoadedModel, rows: Sequence[EncodedText]) -> Tensor:
    """Sum the log-probs (nats) of each row's labelled tokens, and count them -> [N, 2] float64; fp32 arithmetic."""
    result = torch.zeros(len(rows), 2, dtype=torch.float64)
    for places, batch in batches_of(rows, loaded):
        logprobs = labelled_logprobs(loaded.model, batch.input_ids, batch.attention_mask, batch.loss_mask)
        index = torch.tensor(places)[row_of_label(batch.loss_mask).cpu()]
        both = torch.stack([logprobs.double().cpu(), torch.ones(len(logprobs), dtype=torch.float64)], dim=1)
        result.index_add_(0, index, both)
    return result
