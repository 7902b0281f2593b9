"""What train-rm and dpo have in common: how their pairs are laid out."""

from collections.abc import Sequence

from rlhf_cli.data.batches import PairLayout
from rlhf_cli.data.encode import EncodedPair
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.models.packing import allow_packing, can_pack
from rlhf_cli.run.session import Run


def choose_layout(run: Run, models: Sequence[LoadedModel], pairs: Sequence[EncodedPair]) -> PairLayout:
    """Let both answers of a pair share their prompt where all models can read that; say so where one cannot."""
    longest = max((len(side.input_ids) for pair in pairs for side in (pair.chosen, pair.rejected)), default=0)
    reasons = [reason for loaded in models if (reason := _reason_against(loaded, longest))]
    if reasons:
        run.say(f"every prompt is computed twice, once for each answer of a pair: {reasons[0]}")
    return PairLayout(models[0].vocabulary.pad_id, packed=not reasons)


def _reason_against(loaded: LoadedModel, longest: int) -> str | None:
    reason = allow_packing(loaded.core)
    if not reason and not can_pack(loaded.core, longest):
        reason = f"it looks back fewer tokens than the longest row has ({longest})"
    return reason and f"{type(loaded.core).__name__} does not share prompts, because {reason}"
