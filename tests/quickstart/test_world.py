"""The example's files: repeatable, well-formed, and disjoint where they must be."""

import json
import re
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from rlhf_cli.quickstart import gold, world
from rlhf_cli.quickstart.make import Sizes, write

SIZES = Sizes(base=1000, demonstrations=1000, collect_prompts=200, ppo_prompts=200, eval_prompts=100)
NAMES = ("base", "demonstrations", "collect_prompts", "ppo_prompts", "eval_prompts")
PROMPT = re.compile(r"Sign: \w+ the \w+ .+, .+ and .+\.\nVisitor: .+\?\nGuide:\n")


def read(folder: Path, name: str) -> list[dict[str, str]]:
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    write(out, 0, SIZES)
    return out


def test_a_seed_gives_the_same_bytes_and_another_does_not(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "same", 0, SIZES)
    write(tmp_path / "other", 1, SIZES)
    for name in NAMES:
        original = (folder / f"{name}.jsonl").read_bytes()
        assert (tmp_path / "same" / f"{name}.jsonl").read_bytes() == original
        assert (tmp_path / "other" / f"{name}.jsonl").read_bytes() != original


def test_sizes_and_columns(folder: Path) -> None:
    columns = {name: {frozenset(row) for row in read(folder, name)} for name in NAMES}
    prompt_row = {frozenset({"prompt", "answer"})}
    assert columns == {
        "base": {frozenset({"text"})},
        "demonstrations": {frozenset({"prompt", "completion"})},
        "collect_prompts": prompt_row,
        "ppo_prompts": prompt_row,
        "eval_prompts": prompt_row,
    }
    assert [len(read(folder, name)) for name in NAMES] == [1000, 1000, 200, 200, 100]


def test_no_sign_is_used_twice(folder: Path) -> None:
    texts = [row.get("prompt", row.get("text", "")) for name in NAMES for row in read(folder, name)]
    signs = [text.splitlines()[0] for text in texts]
    assert len(set(signs)) == len(signs) == 2500


def test_prompts_hold_their_answer_and_end_where_the_guide_speaks(folder: Path) -> None:
    for name in NAMES[2:]:
        for row in read(folder, name):
            assert PROMPT.fullmatch(row["prompt"])
            assert row["answer"] in row["prompt"].splitlines()[0]
            assert gold.parts(row["prompt"], f"It is {row['answer']}.", row["answer"])["fact"] == 1.0


def test_demonstrations_are_of_mixed_quality(folder: Path) -> None:
    rows = read(folder, "demonstrations")
    assert all(PROMPT.fullmatch(row["prompt"]) and row["completion"].strip() for row in rows)
    rude = [re.match(r"[^.!?]+[.!?]", row["completion"] + ".") for row in rows]
    assert (
        0.1 < statistics.mean(match is not None and match[0] in world.RUDE_OPENERS for match in rude) < 0.25
    )
    assert 0.08 < statistics.mean(row["completion"][-1] not in ".!?" for row in rows) < 0.16


def test_base_text_contradicts_the_sign_only_where_it_is_marked_wrong(folder: Path) -> None:
    values = {value for facet in world.FACETS for value in facet.values}
    for row in read(folder, "base"):
        sign, *lines = row["text"].splitlines()
        unmarked = [line for line, following in pairwise([*lines, ""]) if following != "Wrong."]
        said = set(re.findall(r"\w+", " ".join(unmarked))) & values
        assert said <= set(re.findall(r"\w+", sign))
        assert "Guide:" in lines


def test_base_text_marks_as_often_right_as_wrong(folder: Path) -> None:
    marks = [
        line
        for row in read(folder, "base")
        for line in row["text"].splitlines()
        if line in ("Right.", "Wrong.")
    ]
    assert len(marks) == 4 * 1000
    assert statistics.mean(mark == "Right." for mark in marks) == pytest.approx(0.5, abs=0.03)


def test_every_word_of_the_demonstrations_is_in_the_base_text(folder: Path) -> None:
    """The tokenizer is trained on the base text: it would cut a word it never saw in pieces."""
    base = {word for row in read(folder, "base") for word in re.findall(r"\w+", row["text"])}
    told = {word for row in read(folder, "demonstrations") for word in re.findall(r"\w+", row["completion"])}
    assert told <= base


def test_the_module_runs_as_a_command_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['make', '--out', sys.argv[1], '--seed', '3'];"
        "runpy.run_module('rlhf_cli.quickstart.make', run_name='__main__');"
        "raise SystemExit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(read(tmp_path, "eval_prompts")) == 256
