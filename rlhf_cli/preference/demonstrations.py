"""What people wrote as training rows for `rlhf sft`, and what there is to know about it."""

from collections import Counter
from statistics import median

from rlhf_cli.preference.store import Store, text_to_json
from rlhf_cli.preference.writing import Writing, writings_of
from rlhf_cli.records import Message, Text

Row = dict[str, object]


def demonstration_rows(store: Store) -> list[Row]:
    """Return {"prompt", "completion"} for each answer in force, in the shape of its prompt, with its provenance."""
    prompts, drafts = store.prompts(), _drafts(store)
    return [
        _row(writing, prompts[writing.prompt_id - 1].prompt, drafts.get(writing.prompt_id))
        for writing in writings_of(store)
        if writing.outcome == "written"
    ]


def _row(writing: Writing, prompt: Text, draft: Row | None) -> Row:
    text = writing.text
    completion = text_to_json(text if isinstance(prompt, str) else (Message("assistant", text),))
    row: Row = {
        "prompt": text_to_json(prompt),
        "completion": completion,
        "prompt_id": writing.prompt_id,
        "labeler": writing.labeler,
        "seconds": writing.seconds,
    }
    if draft is not None:
        source = {name: value for name, value in draft.items() if name != "text"}
        row |= {"draft": source, "draft_changed": text.split() != str(draft["text"]).split()}
    return row


def _drafts(store: Store) -> dict[int, Row]:
    query = """SELECT prompt_id, text, model, model_digest, temperature, top_p, seed FROM responses
               WHERE candidate = 0 AND sample = 0"""
    return {row["prompt_id"]: dict(list(dict(row).items())[1:]) for row in store.rows(query)}


def summarise_writings(store: Store) -> dict[str, float]:
    """Count the prompts by what became of them, the people, and the time an answer took.

    unchanged_rate is the share of the answers that are a model's draft as it was; it is left out without drafts.
    """
    writings = writings_of(store)
    written = [writing for writing in writings if writing.outcome == "written"]
    outcomes = Counter(writing.outcome for writing in writings)
    rows = demonstration_rows(store)
    changed = [bool(row["draft_changed"]) for row in rows if "draft_changed" in row]
    summary: dict[str, float] = {
        "num_prompts": len(store.prompts()),
        "num_written": outcomes["written"],
        "num_skipped": outcomes["skip"],
        "num_people": len({writing.labeler for writing in written}),
    }
    if written:
        summary["median_seconds"] = median(writing.seconds for writing in written)
        summary["median_characters"] = median(len(writing.text) for writing in written)
    if changed:
        summary["unchanged_rate"] = changed.count(False) / len(changed)
    return summary
