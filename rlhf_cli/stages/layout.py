"""What the training stages have in common: how rows are laid out for the models that read them."""

from collections.abc import Iterable, Sequence

from rlhf_cli.data.batches import Layout
from rlhf_cli.data.encode import EncodedPair, EncodedText
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.models.packing import allow_packing, can_pack
from rlhf_cli.run.session import Run


def choose_layout(run: Run, models: Sequence[LoadedModel], rows: Iterable[EncodedText]) -> Layout:
    """Pack rows where all models can read that, each prompt once; say so where one cannot."""
    return choose_layout_up_to(run, models, max((len(row.input_ids) for row in rows), default=0))


def choose_layout_up_to(run: Run, models: Sequence[LoadedModel], longest: int) -> Layout:
    """Choose as above for rows of up to `longest` tokens, which may not be there yet."""
    reasons = [reason for loaded in models if (reason := _reason_against(loaded, longest))]
    if reasons:
        run.say(f"slower: rows are padded, and every answer gets a copy of its prompt, because {reasons[0]}")
    return Layout(models[0].vocabulary.pad_id, packed=not reasons)


def sides_of(pairs: Iterable[EncodedPair]) -> Iterable[EncodedText]:
    """Give both answers of each pair."""
    return (side for pair in pairs for side in (pair.chosen, pair.rejected))


def _reason_against(loaded: LoadedModel, longest: int) -> str | None:
    reason = allow_packing(loaded.core)
    if not reason and not can_pack(loaded.core, longest):
        reason = f"it looks back fewer tokens than the longest row has ({longest})"
    return reason and f"{type(loaded.core).__name__} cannot read packed rows: {reason}"
