"""The preference formats by their names: rows in, comparisons out."""

from collections.abc import Callable, Mapping

from rlhf_cli.data.annotations import argilla, label_studio
from rlhf_cli.data.fields import Row, SetAside
from rlhf_cli.data.preferences import (
    Pair,
    comparison,
    hh,
    openai_summaries,
    pku_saferlhf,
    preference,
    response_pair,
    shp,
    ultrafeedback,
)
from rlhf_cli.data.token_rows import FORMAT, best_against_others
from rlhf_cli.data.verdicts import (
    arena,
    asked_preference,
    helpsteer3,
    ranked_completions,
    shared_prefix,
    sharegpt_preference,
    webgpt,
)
from rlhf_cli.records import Comparison

_PAIRS: Mapping[str, Callable[[Row], Pair]] = {
    "hh": hh,
    "ultrafeedback": ultrafeedback,
    "response_pair": response_pair,
    "shp": shp,
    "pku_saferlhf": pku_saferlhf,
    "openai_summaries": openai_summaries,
    "label_studio": label_studio,
    "argilla": argilla,
    "helpsteer3": helpsteer3,
    "arena": arena,
    "webgpt": webgpt,
    "ranked_completions": ranked_completions,
    "sharegpt_preference": sharegpt_preference,
    "asked_preference": asked_preference,
    "shared_prefix": shared_prefix,
    "preference": preference,
}


def comparisons_of(row: Row, name: str, origin: str) -> tuple[list[Comparison], tuple[str, ...]]:
    """Read one row in the preference format `name`, with what there is to count. Raises BadRow and SetAside.

    Of a row with several pairs those that give no record are counted; SetAside says that none does.
    """
    records: list[Comparison] = []
    notes: list[str] = []
    asides: list[SetAside] = []
    for pair in pairs_of(row, name):
        try:
            record, found = comparison(pair, origin)
        except SetAside as aside:
            asides.append(aside)
        else:
            records.append(record)
            notes += found
    if not records:
        raise asides[0]
    return records, (*notes, *(f"{aside.kind} beside usable ones" for aside in asides))


def pairs_of(row: Row, name: str) -> list[Pair]:
    """Read the pairs of one row in the preference format `name`; only rows of several samples have several."""
    return best_against_others(row) if name == FORMAT else [_PAIRS[name](row)]
