"""`rlhf data convert`: rows of any known format as rows of another."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rlhf_cli.errors import RunConflictError, UsageError
from rlhf_cli.preference.export import json_lines
from rlhf_cli.preference.other_formats import Exchange, hh, parquet, trl
from rlhf_cli.preference.store import text_to_json
from rlhf_cli.records import Comparison, Demonstration, Dialog, Message, Text
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.tools.data_set import DataSet, Record

Row = Mapping[str, object]
TargetFormat = Literal["preference", "trl", "hh", "prompt_completion", "messages", "prompts"]


def convert(data_set: DataSet, out: Path, target: TargetFormat) -> tuple[int, int]:
    """Write the rows to a new file; return how many, and how many the format has no place for.

    A name that ends in .parquet makes a Parquet file, any other JSON lines. Raises UsageError where the rows hold
    nothing of that kind, RunConflictError where the file is there already.
    """
    if out.exists():
        raise RunConflictError(
            f"{out} exists", where=str(out), fix="Remove it first, or choose another name."
        )
    rows = [
        row for record in [*data_set.train, *data_set.eval] for row in _rows(record, target, data_set.kind)
    ]
    if out.suffix == ".parquet":
        if target in ("hh", "messages"):
            raise UsageError(
                f"rows of {target} are not written as Parquet", fix="Let the file end in .jsonl."
            )
        rows = _lines_of_trl(rows) if target == "trl" else rows
        content, left_out = parquet(Exchange(rows, []))
    elif target in _SHAPED:
        content, left_out = _SHAPED[target](Exchange(rows, []))
    else:
        content, left_out = json_lines(rows), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, content)
    return len(rows) - left_out, left_out


_SHAPED: Mapping[str, Callable[[Exchange], tuple[bytes, int]]] = {"hh": hh, "trl": trl}


def _lines_of_trl(rows: Sequence[Row]) -> list[Row]:
    names = ("prompt", "chosen", "rejected")
    return [{name: row[name] for name in names} for row in rows if row.get("p_chosen") != 0.5]


def _rows(record: Record, target: TargetFormat, kind: str) -> list[Row]:
    if target == "prompts":
        return [{"prompt": text_to_json(record.prompt)}]
    if target in ("preference", "trl", "hh"):
        if not isinstance(record, Comparison):
            raise _no_such(kind, target)
        return [_preference(record)]
    completion = _completion(record)
    if completion is None:
        raise _no_such(kind, target)
    if target == "messages":
        dialog = _dialog(record.prompt, "user") + _dialog(completion, "assistant")
        return [{"messages": text_to_json(dialog)}]
    return [{"prompt": text_to_json(record.prompt), "completion": text_to_json(completion)}]


def _no_such(kind: str, target: str) -> UsageError:
    return UsageError(f"{kind} cannot be written as {target}", fix="See `rlhf data convert --help`.")


def _preference(record: Comparison) -> Row:
    row: dict[str, object] = {
        "prompt": text_to_json(record.prompt),
        "chosen": text_to_json(record.chosen),
        "rejected": text_to_json(record.rejected),
    }
    if record.p_chosen != 1.0:
        row["p_chosen"] = record.p_chosen
    if record.margin:
        row["margin"] = record.margin
    return row


def _completion(record: Record) -> Text | None:
    if isinstance(record, Demonstration):
        return record.completion
    return record.chosen if isinstance(record, Comparison) else None


def _dialog(text: Text, role: str) -> Dialog:
    if isinstance(text, str):
        return (Message(role, text),) if text else ()
    return text
