"""Scores from a trained reward model, on the scale its training measured."""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rlhf_cli.data.batches import Layout
from rlhf_cli.data.episode import Episode, row_of
from rlhf_cli.errors import DivergedError
from rlhf_cli.models.device import Autocast
from rlhf_cli.models.heads import scores_at
from rlhf_cli.models.packing import can_pack
from rlhf_cli.run.ranks import Ranks


class TrainedScorer:
    """(score - mean) / std of prompt and completion together, read at their last token.

    `model` is a sequence classification model with one label, adapters and all; at most `micro_tokens` tokens go
    through it at once. They are packed where `allow_packing` has found that it can read that.
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
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model.eval()
        self.pad_id = pad_id
        self.mean = mean
        self.std = std
        self.micro_tokens = micro_tokens
        self.autocast = autocast
        self.device = device
        self.ranks = ranks or Ranks()

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return normalised scores; raise DivergedError when one is not finite. Processes share the work."""
        rows = [row_of(episode) for episode in episodes]
        longest = max((len(row.input_ids) for row in rows), default=0)
        layout = Layout(self.pad_id, packed=can_pack(self.model, longest))
        column = torch.zeros(len(rows), dtype=torch.float64)
        parts = layout.cut(
            range(len(rows)), lambda i: len(rows[i].input_ids), self.micro_tokens, self.ranks.size
        )
        for indices, counts in self.ranks.turns(parts):
            answers = layout.collate([rows[i] for i in indices]).to(self.device)
            with torch.no_grad(), self.autocast():
                raw = scores_at(self.model, answers.inputs, answers.last_index)
            if counts:
                column[indices] = raw.double().cpu()
        scores = [(value - self.mean) / self.std for value in self.ranks.add_up(column).tolist()]
        if not all(map(math.isfinite, scores)):
            count = sum(not math.isfinite(score) for score in scores)
            raise DivergedError(
                f"the reward model gave {count} of {len(scores)} answers a score that is not finite",
                fix="Check the reward model, and use precision float32.",
            )
        return scores
