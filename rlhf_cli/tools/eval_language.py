"""`rlhf eval perplexity` and `rlhf eval kl`: how likely a model finds given rows, and how far it is from another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.data.batches import TokenBatch
from rlhf_cli.data.episode import row_of
from rlhf_cli.data.readers import read_demonstrations
from rlhf_cli.errors import DataError
from rlhf_cli.models.load import LoadedModel, load_policy_for_sampling, load_reference
from rlhf_cli.models.scoring import head_on, row_of_label
from rlhf_cli.tools.eval_rows import (
    Estimate,
    batches_of,
    encoder_of,
    ratio,
    read_each,
    require_rows,
    row_logprobs,
)
from rlhf_cli.tools.manner import Manner
from rlhf_cli.tools.speaker import Speaker, read_prompt_file


@dataclass(frozen=True)
class Likelihood:
    """How likely the labelled tokens of one source are: mean loss in nats per token, and its exponential."""

    source: str
    rows: int
    tokens: int
    loss: Estimate
    perplexity: Estimate


def perplexity(
    model: str, paths: Sequence[str], *, loss_on: str, max_length: int | None, limit: int | None
) -> list[Likelihood]:
    """Measure each source, and all together where there are several."""
    loaded = load_policy_for_sampling(model)
    parts, found = [], []
    for path, records in read_each(paths, read_demonstrations, limit):
        encoder = encoder_of(loaded.vocabulary, max_length=max_length)
        rows = require_rows(encoder.demonstrations(records, loss_on=loss_on), path, encoder)
        parts.append(row_logprobs(loaded, rows))
        found.append(_likelihood(path, parts[-1]))
    return found if len(found) == 1 else [*found, _likelihood("all", torch.cat(parts))]


def _likelihood(source: str, parts: Tensor) -> Likelihood:
    losses = parts * torch.tensor([-1.0, 1.0])
    loss = ratio(losses)
    bounds = (None if it is None else math.exp(it) for it in (loss.low, loss.high))
    perplexity = Estimate(math.exp(loss.value), *bounds)
    return Likelihood(source, len(parts), int(parts[:, 1].sum()), loss, perplexity)


_TOKENS_AT_ONCE = 512  # whole distributions of two models are kept for each


@dataclass(frozen=True)
class Distance:
    """KL(A || B) in nats over A's own answers: exact per token, summed over an answer, and per token of all."""

    answers: int
    tokens: int
    kl_per_answer: Estimate
    kl_per_token: Estimate


def kl(one: str, other: str, prompts: str, *, manner: Manner, limit: int | None) -> Distance:
    """Sample answers of `one` and compare both models' distributions at each of their tokens.

    The sum over an answer is unbiased for the KL between the two distributions over answers, with less spread than
    log-ratios have: at each token the expectation over the vocabulary is taken exactly. Both are at the temperature
    of `manner`, and top_p is not applied. Raises DataError where the tokenizers differ.
    """
    speaker = Speaker.open(one, manner.template)
    reference = load_reference(other, speaker.loaded.vocabulary)
    episodes = [it for it in speaker.answer(read_prompt_file(prompts, limit), manner) if it]
    if not episodes:
        raise DataError("no prompt leaves room for an answer", where=prompts, fix="Give shorter prompts.")
    rows = [row_of(it) for it in episodes]
    parts = torch.zeros(len(rows), 2, dtype=torch.float64)
    for places, batch in batches_of(rows, speaker.loaded, _TOKENS_AT_ONCE):
        mine, theirs = (_distributions(model, batch, manner) for model in (speaker.loaded, reference))
        width = min(mine.shape[1], theirs.shape[1])  # one of them may have a PAD more
        distances = (mine[:, :width].exp() * (mine[:, :width] - theirs[:, :width])).sum(1).double().cpu()
        index = torch.tensor(places)[row_of_label(batch.loss_mask).cpu()]
        parts.index_add_(0, index, torch.stack([distances, torch.ones_like(distances)], dim=1))
    each = torch.stack([parts[:, 0], torch.ones(len(rows), dtype=torch.float64)], dim=1)
    return Distance(len(rows), int(parts[:, 1].sum()), ratio(each), ratio(parts))


def _distributions(loaded: LoadedModel, batch: TokenBatch, manner: Manner) -> Tensor:
    """Give the log-probs [N, V] of what may stand at each labelled place."""
    predicting_mask = torch.zeros_like(batch.loss_mask)
    predicting_mask[:, :-1] = batch.loss_mask[:, 1:]
    with torch.no_grad(), head_on(loaded.model, predicting_mask.flatten().nonzero()[:, 0]):
        output = loaded.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits: Tensor = output.logits.float() / (manner.temperature or 1.0)
    return logits.log_softmax(-1)
