"""Write the tables of keys into docs/STAGE.md from the configuration classes: `python -m scripts.docs.keys`.

With `--check` nothing is written, and the exit code is 1 when a page is not what it would be.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rlhf_cli.config.base import Section
from rlhf_cli.config.model_tree import kind_of, shape_of
from rlhf_cli.config.stages import STAGES

DOCS = Path(__file__).parents[2] / "docs"
NOTATION = "`x[]` is an entry of the list `x`, `x(word)` one whose `kind` is that word; `null` means not set."
BEGIN, END = "<!-- keys -->", "<!-- end of keys -->"


def key_rows(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, meaning) of every key below a section, in the order of the file."""
    for name, info in section.model_fields.items():
        shape = shape_of(info.annotation)
        key = f"{prefix}{name}"
        yield key, default_of(info), meaning_of(info)
        for variant in shape.variants:
            kind = kind_of(variant)
            place = f"{key}[]" if shape.is_list else key
            yield from key_rows(
                variant, f"{place}({kind})." if kind and len(shape.variants) > 1 else f"{place}."
            )


def default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = (
        info.default if info.default is not PydanticUndefined else info.get_default(call_default_factory=True)
    )
    if isinstance(value, Section):
        return ""
    return f"`{json.dumps(value)}`"


def meaning_of(info: FieldInfo) -> str:
    """Return the sentence of a key, behind it the words it takes where only some are allowed."""
    text = " ".join((info.description or "").split())
    words = words_of(info.annotation)
    return f"{text} {', '.join(f'`{word}`' for word in words)}." if len(words) > 1 else text


def words_of(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return []


def table(stage: str) -> str:
    lines = [NOTATION, "", "| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in key_rows(STAGES[stage]):
        if not key.endswith(").kind"):
            lines.append(f"| `{key}` | {escape(default)} | {escape(meaning)} |")
    return "\n".join(lines)


def escape(text: str) -> str:
    return text.replace("|", "\\|")


def page_with_table(stage: str) -> tuple[Path, str, str]:
    """Return the page of a stage, its text, and its text with the table as it should be."""
    path = DOCS / f"{stage}.md"
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for its keys: {BEGIN} ... {END}")
    return path, text, f"{before}{BEGIN}\n\n{table(stage)}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    stale = []
    for stage in STAGES:
        path, text, wanted = page_with_table(stage)
        if text != wanted:
            stale.append(str(path.relative_to(DOCS.parent)))
            if "--check" not in arguments:
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print(f"{'stale' if '--check' in arguments else 'written'}: {', '.join(stale)}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
