"""Scores from a trained reward model, on the scale its training measured."""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rlhf_cli.data.batches import split_by_tokens
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, DivergedError
from rlhf_cli.models.device import Autocast
from rlhf_cli.models.heads import last_token_scores


class TrainedScorer:
    """(score - mean) / std of prompt and completion together, read at their last token.

    `model` is a sequence classification model with one label; at most `micro_tokens` padded tokens go through it
    at once. Raises DataError when it pads with another token than `pad_id`: it would read the wrong position.
    """

    name = "model"

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        *,
        mean: float,
        std: float,
        micro_tokens: int,
        autocast: Autocast,
        device: torch.device,
    ) -> None:
        own_pad_id = model.config.get_text_config().pad_token_id
        if own_pad_id != pad_id:
            raise DataError(
                f"the reward model pads with token {own_pad_id}, its tokenizer with {pad_id}",
                where="config.json: pad_token_id",
                fix="Give the model and its tokenizer the same padding token.",
            )
        self.model = model.eval()
        self.pad_id = pad_id
        self.mean = mean
        self.std = std
        self.micro_tokens = micro_tokens
        self.autocast = autocast
        self.device = device

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return normalised scores; raise DivergedError when one is not finite."""
        rows = [episode.prompt_ids + episode.completion_ids for episode in episodes]
        scores = [0.0] * len(rows)
        for indices in split_by_tokens(range(len(rows)), lambda i: len(rows[i]), self.micro_tokens):
            raw = self._forward([rows[i] for i in indices])
            for i, value in zip(indices, raw, strict=True):
                scores[i] = (value - self.mean) / self.std
        if not all(map(math.isfinite, scores)):
            count = sum(not math.isfinite(score) for score in scores)
            raise DivergedError(
                f"the reward model gave {count} of {len(scores)} answers a score that is not finite",
                fix="Check the reward model, and use precision float32.",
            )
        return scores

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Return the raw scores of rows of token ids, padded on the right."""
        width = max(map(len, rows))
        input_ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        attention_mask = (torch.arange(width) < lengths[:, None]).long()
        with torch.no_grad(), self.autocast():
            scores = last_token_scores(self.model, input_ids.to(self.device), attention_mask.to(self.device))
        return scores.tolist()
