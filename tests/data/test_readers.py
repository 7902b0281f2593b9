"""Whole readings: what is kept, what is rejected and why, what is said, and that nothing goes uncounted."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.config.sections import Source
from rlhf_cli.data.files import Reading, Rejected
from rlhf_cli.data.readers import read_comparisons, read_demonstrations, read_prompts, weighted
from rlhf_cli.errors import DataError
from rlhf_cli.records import Demonstration, Message, Prompt

GOOD = {"prompt": "q", "chosen": "yes", "rejected": "no"}
SAME = {"prompt": "q", "chosen": "yes", "rejected": "yes"}
BROKEN = '{"prompt"'
TIE = {**GOOD, "score_chosen": 1, "score_rejected": 1}


def write(path: Path, rows: Sequence[Mapping[str, object] | str]) -> Source:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return Source(path=str(path))


def test_a_reading_accounts_for_every_row(tmp_path: Path):
    source = write(tmp_path / "f.jsonl", [GOOD, SAME, TIE, BROKEN, {"prompt": "q", "chosen": "yes"}])
    reading = read_comparisons([source], on_bad_row="skip")
    assert [record.p_chosen for record in reading.records] == [1.0, 0.5]
    assert reading.num_rows == 5
    assert reading.rejected == [
        Rejected(f"{tmp_path}/f.jsonl:2", "identical answers"),
        Rejected(f"{tmp_path}/f.jsonl:4:10", "expecting ':' delimiter, near '{\"prompt\"'"),
        Rejected(f"{tmp_path}/f.jsonl:5", "field 'rejected' is missing"),
    ]
    assert reading.counts == {"identical answers": 1, "bad rows": 2, "ties (kept with p_chosen 0.5)": 1}
    assert reading.formats == [f"{tmp_path}/f.jsonl: preference (columns chosen, rejected), 5 rows"]


def test_bad_rows_stop_with_the_first_five_and_the_total(tmp_path: Path):
    source = write(tmp_path / "f.jsonl", [GOOD, SAME, *[{"prompt": "q", "chosen": 1, "rejected": "b"}] * 7])
    with pytest.raises(DataError) as caught:
        read_comparisons([source])
    message = caught.value.message
    assert message.startswith("7 of 9 rows cannot be read:\n")
    assert message.count("field 'chosen' is a number") == 5
    assert message.endswith("and 2 more")
    assert caught.value.where == f"{tmp_path}/f.jsonl:3"


def test_rows_set_aside_never_stop_a_run(tmp_path: Path):
    assert len(read_comparisons([write(tmp_path / "f.jsonl", [GOOD, SAME])]).records) == 1


@pytest.mark.parametrize("rows", [[SAME, SAME], [BROKEN, BROKEN]])
def test_no_record_at_all_is_an_error_even_when_skipping(tmp_path: Path, rows: list[dict[str, object] | str]):
    with pytest.raises(DataError, match="none of the 2 rows gives a record"):
        read_comparisons([write(tmp_path / "f.jsonl", rows)], on_bad_row="skip")


def test_bad_rows_in_front_do_not_hide_the_format(tmp_path: Path):
    source = write(tmp_path / "f.jsonl", [BROKEN] * 30 + [{"question": "1+1?", "answer": "2"}])
    reading = read_demonstrations([source], on_bad_row="skip")
    assert "question_answer" in reading.formats[0]
    assert len(reading.records) == 1


def test_csv_scores_are_numbers(tmp_path: Path):
    (tmp_path / "f.csv").write_text(
        "prompt,chosen,rejected,score_chosen,score_rejected\nq,a,b,3,1\nq,c,d,2,2\n"
    )
    records = read_comparisons([Source(path=str(tmp_path / "f.csv"))]).records
    assert [(r.margin, r.p_chosen) for r in records] == [(2.0, 1.0), (0.0, 0.5)]


def test_the_kind_a_file_really_has_is_said(tmp_path: Path):
    (tmp_path / "f.jsonl").write_text("prompt,completion\nq,a\n")
    reading = read_demonstrations([Source(path=str(tmp_path / "f.jsonl"))])
    assert reading.formats[0].endswith("1 rows, by its content CSV, whatever its name says")


def test_an_explicit_format_wins_over_the_columns(tmp_path: Path):
    write(tmp_path / "f.jsonl", [{"text": "t", "question": "q", "answer": "a"}])
    source = Source(path=str(tmp_path / "f.jsonl"), format="text")
    reading = read_demonstrations([source])
    assert reading.records == [Demonstration("", "t", f"{tmp_path}/f.jsonl:1")]
    assert "text (as configured)" in reading.formats[0]
    with pytest.raises(DataError, match="format 'text' gives nothing this stage can use"):
        read_comparisons([source])


def test_columns_are_mapped_before_the_format_is_told(tmp_path: Path):
    path = str(write(tmp_path / "f.jsonl", [{"question": "q", "answer": "a"}]).path)
    source = Source(path=path, columns={"prompt": "question", "completion": "answer"})
    assert read_demonstrations([source]).records == [Demonstration("q", "a", f"{path}:1")]
    with pytest.raises(DataError) as caught:
        read_demonstrations([Source(path=path, columns={"prompt": "qestion"})])
    assert caught.value.fix == "Did you mean 'question'?"


def test_the_chosen_answer_is_a_demonstration_and_a_tie_is_none(tmp_path: Path):
    reading = read_demonstrations([write(tmp_path / "f.jsonl", [GOOD, TIE])])
    assert reading.records == [Demonstration("q", "yes", f"{tmp_path}/f.jsonl:1")]
    assert reading.counts == {"a tie has no answer to imitate": 1}


def test_prompts_carry_the_other_plain_columns(tmp_path: Path):
    rows = [{"question": "1+1?", "answer": "2", "level": 3, "hard": False, "tags": ["x"], "note": None}]
    (prompt,) = read_prompts([write(tmp_path / "f.jsonl", rows)]).records
    assert prompt == Prompt(
        (Message("user", "1+1?"),), f"{tmp_path}/f.jsonl:1", {"answer": "2", "level": 3, "hard": False}
    )


def test_prompts_of_pairs_need_no_usable_pair(tmp_path: Path):
    transcript = "\n\nHuman: q\n\nAssistant: same"
    source = write(tmp_path / "f.jsonl", [{"chosen": transcript, "rejected": transcript}])
    assert read_prompts([source]).records[0].prompt == (Message("user", "q"),)


def test_an_empty_prompt_is_set_aside(tmp_path: Path):
    reading = read_prompts([write(tmp_path / "f.jsonl", [{"prompt": " "}, {"prompt": "x"}])])
    assert (len(reading.records), reading.counts) == (1, {"empty prompt": 1})


def test_repeated_prompts_are_dropped_over_all_sources_on_request(tmp_path: Path):
    one = write(tmp_path / "one.jsonl", [{"prompt": "Hello  there"}, {"prompt": "b"}])
    two = write(tmp_path / "two.jsonl", [{"prompt": "hello there\n"}, {"prompt": "c"}])
    reading = read_prompts([one, two], deduplicate=True)
    assert [record.prompt for record in reading.records] == ["Hello  there", "b", "c"]
    assert (reading.num_rows, reading.counts) == (4, {"repeated prompts": 1})
    assert len(read_prompts([one, two]).records) == 4


def test_limit_is_over_all_files_of_a_source(tmp_path: Path):
    write(tmp_path / "a.jsonl", [GOOD, SAME, GOOD])
    write(tmp_path / "b.jsonl", [GOOD, GOOD])
    reading = read_comparisons([Source(path=str(tmp_path), limit=4)])
    assert (reading.num_rows, len(reading.records)) == (4, 3)
    assert len(read_comparisons([Source(path=str(tmp_path), limit=2)]).formats) == 1


def test_a_weight_repeats_and_samples(tmp_path: Path):
    rows = [{"text": str(i)} for i in range(10)]
    path = str(write(tmp_path / "f.jsonl", rows).path)

    def texts(weight: float, seed: int = 0) -> list[object]:
        return [
            r.completion for r in read_demonstrations([Source(path=path, weight=weight)], seed=seed).records
        ]

    everything = [str(i) for i in range(10)]
    assert texts(1.0) == everything
    assert texts(2.0) == everything * 2
    half = texts(0.5)
    assert len(half) == len(set(half)) == 5
    assert half == sorted(half) == texts(0.5)
    assert half != texts(0.5, seed=1)
    assert texts(2.5) == everything * 2 + half


@given(st.integers(0, 50), st.floats(0.01, 5.0))
def test_the_size_of_a_weighted_source(num_rows: int, weight: float):
    records = [Demonstration("", str(i), "f") for i in range(num_rows)]
    assert abs(len(weighted(records, weight, "s")) - num_rows * weight) <= 0.5 + 1e-9


LINES = [
    b'{"chosen": "\\n\\nHuman: q\\n\\nAssistant: y", "rejected": "\\n\\nHuman: q\\n\\nAssistant: n"}',
    b'{"chosen": "\\n\\nHuman: \xc3\xbc\\n\\nAssistant: y", "rejected": "\\n\\nHuman: \xc3\xbc\\n\\nAssistant: y"}',
    b'{"chosen": "\\n\\nHuman: q\\n\\nAssistant: y", "rejected": "\\n\\nHuman: \\ud83e\\udd8a"}',
]
MUTATION = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["set", "drop", "insert", "cut"]), st.binary(max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=6),
    mutations=st.lists(MUTATION, max_size=4),
    name=st.sampled_from(["f.jsonl", "f.json", "f.csv", "f"]),
    on_bad_row=st.sampled_from(["skip", "error"]),
)
def test_mutated_bytes_give_a_reading_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    mutations: list[tuple[int, str, bytes]],
    name: str,
    on_bad_row: str,
):
    data = bytearray(b"\n".join(lines))
    for position, kind, junk in mutations:
        at = position % (len(data) + 1)
        end = {"set": at + len(junk), "drop": at + 1, "insert": at, "cut": len(data)}[kind]
        data[at:end] = b"" if kind == "drop" else junk
    path = tmp_path_factory.mktemp("mutated") / name
    path.write_bytes(data)
    source = Source(path=str(path))
    for read in (read_comparisons, read_demonstrations, read_prompts):
        outcome = reading_or_error(lambda read=read: read([source], on_bad_row=on_bad_row))
        if isinstance(outcome, DataError):
            assert outcome.where
            assert outcome.fix
        else:
            assert outcome.num_rows == len(outcome.records) + len(outcome.rejected)
            assert sum(outcome.counts.values()) == len(outcome.rejected)


def reading_or_error(read: Callable[[], Reading[object]]) -> Reading[object] | DataError:
    try:
        return read()
    except DataError as error:
        return error


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
        min_size=1,
        max_size=5,
    ).filter(lambda rows: all(answer.strip() for _, answer in rows)),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    escape=st.booleans(),
)
def test_text_survives_unchanged(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    newline: str,
    bom: bool,
    escape: bool,
):
    lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=escape) for p, c in rows]
    path = tmp_path_factory.mktemp("text") / "f.jsonl"
    path.write_bytes(newline.join(lines).encode("utf-8-sig" if bom else "utf-8"))
    records = read_demonstrations([Source(path=str(path))]).records
    assert [(record.prompt, record.completion) for record in records] == rows
