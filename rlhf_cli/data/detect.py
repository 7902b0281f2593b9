"""Which format a table has, told from the columns of its first rows, and always with the reason."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlhf_cli.data.fields import Row
from rlhf_cli.errors import DataError

SINGLE = ("messages", "sharegpt", "prompt_completion", "instruction", "question_answer", "text")
PAIRED = (
    "hh", "ultrafeedback", "response_pair", "shp", "pku_saferlhf", "openai_summaries", "helpsteer3", "arena", "webgpt",
    "ranked_completions", "label_studio", "argilla", "sharegpt_preference", "asked_preference", "lm_human_preferences",
    "preference", "shared_prefix",
)  # fmt: skip

# The order of these tuples decides where columns fit several formats: the more telling format stands first.
FOR_DEMONSTRATIONS = (*SINGLE[:-1], *PAIRED, "text")
FOR_COMPARISONS = PAIRED
FOR_LABELLED = ("prompt_completion", *PAIRED)
FOR_PROMPTS = ("hh", "ultrafeedback", "prompts", *SINGLE[:-1], *PAIRED[2:])

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "question_answer": ("question", "answer"),
    "text": ("text",),
    "hh": ("chosen", "rejected"),
    "response_pair": ("prompt", "response_a", "response_b", "preferred"),
    "shp": ("history", "human_ref_A", "human_ref_B", "labels"),
    "pku_saferlhf": ("prompt", "response_0", "response_1", "better_response_id"),
    "openai_summaries": ("info", "summaries", "choice"),
    "helpsteer3": ("context", "response1", "response2", "overall_preference"),
    "arena": ("conversation_a", "conversation_b", "winner"),
    "webgpt": ("question", "answer_0", "answer_1", "score_0", "score_1"),
    "ranked_completions": ("context", "completions"),
    "lm_human_preferences": ("query", "sample0", "sample1", "best"),
    "label_studio": ("data", "annotations"),
    "sharegpt_preference": ("conversations", "chosen", "rejected"),
    "preference": ("chosen", "rejected"),
}


class Detected(NamedTuple):
    """A format's name and one clause that says why."""

    name: str
    reason: str


def detect_format(name: str, rows: Sequence[Row], candidates: tuple[str, ...]) -> Detected:
    """Name the first of `candidates` that the rows of table `name` fit. Raises DataError with the ways out."""
    seen = _merged(rows)
    for candidate in candidates:
        reason = _reason(candidate, seen, rows)
        if reason:
            if candidate == "preference":
                _require_prompt(name, seen)
            return Detected(candidate, reason)
    columns = ", ".join(seen) or "none"
    other = next((c for c in (*FOR_DEMONSTRATIONS, "prompts") if _reason(c, seen, rows)), None)
    known = f"; they fit the format {other!r}, which has no place here" if other else ""
    raise DataError(
        f"the columns of {name} fit no format this stage reads: {columns}{known}",
        where=name,
        fix="Rename columns with the source's `columns: {prompt: <theirs>, ...}`, or set its `format`.",
    )


def _merged(rows: Sequence[Row]) -> dict[str, object]:
    """Give every column of the rows with the first value that is not null."""
    seen: dict[str, object] = {}
    for row in rows:
        for column, value in row.items():
            if seen.get(column) is None:
                seen[column] = value
    return seen


def _reason(candidate: str, seen: Row, rows: Sequence[Row]) -> str:
    """Say why the columns fit a format; empty where they do not."""
    match candidate:
        case "prompts":
            named = [column for column in ("prompt", "question") if seen.get(column) is not None]
            return f"column {named[0]}" if named else ""
        case "argilla":
            nested = isinstance(seen.get("fields"), dict) and "responses" in seen
            flat = [column for column in seen if column.endswith(".responses")]
            return "fields and responses" if nested else f"column {flat[0]}" if flat else ""
        case "ultrafeedback":
            return _reason_ultrafeedback(seen)
        case "sharegpt" | "question_answer" | "instruction" if "chosen" in seen or "answer_0" in seen:
            return ""
        case "asked_preference":
            return _reason_asked(seen)
        case "shared_prefix":
            return ""  # a guess, made when asked for
        case "hh" if "prompt" in seen or not any(_is_transcript(row.get("chosen")) for row in rows):
            return ""
        case "hh":
            return "transcripts in chosen and rejected"
    columns = _COLUMNS[candidate]
    if any(seen.get(column) is None for column in columns):
        return ""
    return ("columns " if len(columns) > 1 else "column ") + ", ".join(columns)


def _reason_ultrafeedback(seen: Row) -> str:
    chosen, completions = seen.get("chosen"), seen.get("completions")
    if isinstance(chosen, list) and isinstance(seen.get("prompt"), str) and len(chosen) > 1:
        return "whole conversations in chosen and rejected beside a plain prompt"
    raw = isinstance(completions, list) and any(
        isinstance(item, dict) and "response" in item for item in completions
    )
    return "rated completions" if raw and "instruction" in seen else ""


def _reason_asked(seen: Row) -> str:
    asked = next(
        (column for column in ("instruction", "question") if isinstance(seen.get(column), str)), None
    )
    answers = next((c for c in ("chosen", "chosen_response") if isinstance(seen.get(c), str | list)), None)
    if asked is None or answers is None or seen.get("prompt") is not None:
        return ""
    return f"columns {asked}, {answers}"


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def _require_prompt(name: str, seen: Row) -> None:
    if seen.get("prompt") is not None or not isinstance(seen.get("chosen"), str):
        return
    asked = next((column for column in ("query", "input") if column in seen), "<theirs>")
    raise DataError(
        "chosen and rejected are plain strings without a prompt, and where it ends in them cannot be known",
        where=name,
        fix=f"Add a prompt column (`columns: {{prompt: {asked}}}` names an existing one), store messages, or set "
        "`format: shared_prefix`, which takes the words that both begin with for the prompt.",
    )


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """Give the row under our names; `columns` maps our name to theirs. A file's own column of our name goes."""
    if not columns:
        return row
    theirs = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in theirs and name not in columns}
    return {**kept, **{ours: row[name] for ours, name in columns.items() if name in row}}


def check_columns(name: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Raise DataError where `columns` names a column that none of the rows has."""
    present = list(_merged(rows))
    for ours, theirs in columns.items():
        if theirs not in present:
            close = difflib.get_close_matches(theirs, present, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Its columns are {', '.join(present)}."
            raise DataError(
                f"{name} has no column {theirs!r}, which `columns` maps to {ours!r}", where=name, fix=hint
            )
