"""`rlhf eval reward`: whether a reward model agrees with held-out comparisons, how sure it is, and what it likes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.algo.metrics import (
    calibration_bins,
    correlation,
    expected_calibration_error,
    pair_accuracy,
    wilson_interval,
)
from rlhf_cli.data.encode import EncodedPair, EncodedText
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.models.heads import last_token_scores, load_reward_model
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.tools.eval_rows import Estimate, batches_of, encoder_of, read_each, require_rows


@dataclass(frozen=True)
class Agreement:
    """How a reward model does on the decided pairs of one source.

    accuracy             share of pairs whose chosen answer gets the higher score, an equal score counting half
    accuracy_by_length   the same where the chosen answer is the longer one, and where it is the shorter one
    calibration_error    mean gap between how sure and how right it is, in ten bins of sureness
    length_correlation   of score and length in tokens, over all answers
    """

    source: str
    pairs: int
    ties: int
    accuracy: Estimate
    accuracy_by_length: tuple[Estimate | None, Estimate | None]
    margin: float
    calibration_error: float
    calibration: list[dict[str, float]]
    length_correlation: float


def reward(model: str, paths: Sequence[str], *, max_length: int | None, limit: int | None) -> list[Agreement]:
    """Measure each source, and all together where there are several."""
    loaded = load_reward_model(model).loaded
    found, scored = [], []
    for path, records in read_each(paths, read_comparisons, limit):
        encoder = encoder_of(loaded.vocabulary, max_length=max_length)
        pairs = require_rows(encoder.comparisons(records), path, encoder)
        decided = [pair for pair in pairs if pair.p_chosen != 0.5]
        require_rows(decided, path, encoder)
        scored.append((_score(loaded, decided), len(pairs) - len(decided)))
        found.append(_agreement(path, *scored[-1]))
    if len(found) == 1:
        return found
    together = torch.cat([table for table, _ in scored])
    return [*found, _agreement("all", together, sum(ties for _, ties in scored))]


@torch.no_grad()
def _score(loaded: LoadedModel, pairs: Sequence[EncodedPair]) -> Tensor:
    """Score both sides -> [B, 4]: scores of chosen and rejected, then their lengths in tokens."""
    rows = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    scores = torch.zeros(len(rows), dtype=torch.float64)
    for places, batch in batches_of(rows, loaded):
        values = last_token_scores(loaded.core, batch.input_ids, batch.attention_mask)
        scores[torch.tensor(places)] = values.double().cpu()
    lengths = torch.tensor([_length(row) for row in rows], dtype=torch.float64)
    return torch.cat([scores.view(-1, 2), lengths.view(-1, 2)], dim=1)


def _length(row: EncodedText) -> float:
    return float(len(row.input_ids) - row.num_prompt)


def _agreement(source: str, table: Tensor, ties: int) -> Agreement:
    margins, longer = table[:, 0] - table[:, 1], table[:, 2] - table[:, 3]
    by_length = (_accuracy(margins[longer > 0]), _accuracy(margins[longer < 0]))
    accuracy = _accuracy(margins)
    assert accuracy is not None
    return Agreement(
        source=source,
        pairs=len(margins),
        ties=ties,
        accuracy=accuracy,
        accuracy_by_length=by_length,
        margin=float(margins.mean()),
        calibration_error=expected_calibration_error(margins),
        calibration=calibration_bins(margins),
        length_correlation=correlation(table[:, :2].flatten(), table[:, 2:].flatten()),
    )


def _accuracy(margins: Tensor) -> Estimate | None:
    if not len(margins):
        return None
    rate = pair_accuracy(margins)
    return Estimate(rate, *wilson_interval(rate * len(margins), len(margins)))
