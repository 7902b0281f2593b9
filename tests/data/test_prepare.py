"""From configured files to encoded splits: what is held out, what is counted, and when to give up."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_tokenizers import byte_tokenizer

from rlhf_cli.config.sections import Data
from rlhf_cli.data.encode import Encoder
from rlhf_cli.data.prepare import (
    comparisons_of,
    demonstrations_of,
    encode_comparisons,
    encode_demonstrations,
    encode_prompts,
    make_encoder_of,
    prompts_of,
    texts_of,
    without_ties,
)
from rlhf_cli.errors import DataError
from rlhf_cli.records import Demonstration, Message
from rlhf_cli.run.directory import RunDir


def section(tmp_path: Path, rows: list[dict[str, object]], **options) -> Data:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data.model_validate({"train": [{"path": str(path)}], **options})


def encoders(data: Data, max_positions: int | None = None) -> Callable[[], Encoder]:
    return make_encoder_of(data, byte_tokenizer(), (), max_positions)


def sums(num_prompts: int, num_each: int = 3) -> list[dict[str, object]]:
    return [
        {"prompt": f"{i}+{i}=", "completion": f" {2 * i + j}"}
        for j in range(num_each)
        for i in range(num_prompts)
    ]


def test_held_out_rows_share_no_prompt_with_training(tmp_path: Path) -> None:
    data = section(tmp_path, sums(30), eval_fraction=0.3)
    records = demonstrations_of(data, seed=1)
    train, held_out = ({r.prompt for r in rows} for rows in (records.train, records.eval))
    assert train | held_out == {f"{i}+{i}=" for i in range(30)}
    assert not train & held_out
    assert 0 < len(held_out) < 20
    assert demonstrations_of(data, seed=1) == records
    assert {r.prompt for r in demonstrations_of(data, seed=2).eval} != held_out


def test_the_reports_add_up(tmp_path: Path) -> None:
    rows = [*sums(10), {"prompt": "x" * 40, "completion": " y"}]
    data = section(tmp_path, rows, eval_fraction=0.3, max_length=30)
    records = demonstrations_of(data, seed=0)
    prepared = encode_demonstrations(records, encoders(data), loss_on="completion")
    train, held_out = prepared.reports
    counts = train["counts"]
    assert train["rows_read"] == 31
    left_out = counts["held out for evaluation"] + counts.get("dropped: the prompt fills the limit", 0)
    assert len(prepared.train) == train["rows_kept"] == 31 - left_out
    assert held_out["rows_read"] == counts["held out for evaluation"] == len(records.eval)
    assert len(prepared.eval) == held_out["rows_kept"]
    assert len(prepared.train) + len(prepared.eval) == 30
    assert "held out for evaluation" in prepared.text


def test_evaluation_sources_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text('{"prompt": "9+9=", "completion": " 18"}\n')
    data = section(tmp_path, sums(2), eval=[{"path": str(tmp_path / "eval.jsonl")}])
    prepared = encode_demonstrations(demonstrations_of(data, 0), encoders(data), loss_on="completion")
    assert [report["rows_read"] for report in prepared.reports] == [6, 1]
    assert "eval.jsonl" in prepared.reports[1]["formats"][0]
    assert "held out for evaluation" not in prepared.text


def pairs(*votes: float) -> list[dict[str, object]]:
    return [{"prompt": f"{i}=", "chosen": " a", "rejected": " b", "p_chosen": p} for i, p in enumerate(votes)]


def test_ties_are_left_out_and_counted_where_they_were_read(tmp_path: Path) -> None:
    data = section(tmp_path, pairs(1.0, 0.5, 0.75, 0.5))
    records = without_ties(comparisons_of(data, 0))
    assert [r.p_chosen for r in records.train] == [1.0, 0.75]
    assert records.train_reading.counts["dropped: tie"] == 2
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(0.5, 1.0)))
    data = data.model_copy(update={"eval": section(tmp_path, pairs(0.5, 1.0, 0.5)).train})
    both = without_ties(comparisons_of(data, 0))
    assert both.eval_reading is not None
    assert (both.train_reading.counts["dropped: tie"], both.eval_reading.counts["dropped: tie"]) == (2, 2)


def test_pairs_show_both_sides(tmp_path: Path) -> None:
    data = section(tmp_path, pairs(1.0, 1.0, 1.0, 1.0))
    prepared = encode_comparisons(comparisons_of(data, 0), encoders(data))
    assert prepared.samples.count("--- ") == 6
    assert "0=⟦ a<|end|>⟧" in prepared.samples
    assert "0=⟦ b<|end|>⟧" in prepared.samples


def test_each_prompt_is_asked_once_and_leaves_room(tmp_path: Path) -> None:
    rows = [{"prompt": "2+2=", "answer": 4}, {"prompt": "2+2="}, {"prompt": "2+2+2+2="}]
    data = section(tmp_path, rows, max_length=10)
    prepared = encode_prompts(prompts_of(data, 0), encoders(data), room_for_answer=6)
    assert [p.record.prompt for p in prepared.train] == ["2+2="]
    assert prepared.train[0].record.extra["answer"] == 4
    with pytest.raises(DataError, match="no prompt is left: the limit is 3 tokens"):
        encode_prompts(prompts_of(data, 0), encoders(data), room_for_answer=7)


def test_no_row_is_longer_than_the_model_reads(tmp_path: Path) -> None:
    data = section(tmp_path, sums(1), max_length=10)
    assert [encoders(data, limit)().max_length for limit in (None, 8, 20)] == [10, 8, 10]


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    data = section(tmp_path, sums(2), max_length=3)
    with pytest.raises(DataError, match=r"no row is left.*6 dropped: the prompt fills the limit"):
        encode_demonstrations(demonstrations_of(data, 0), encoders(data), loss_on="completion")


def test_no_eos_anywhere_is_an_error(tmp_path: Path) -> None:
    data = section(tmp_path, sums(2), max_length=5)
    with pytest.raises(DataError, match="no row ends in a trained EOS"):
        encode_demonstrations(demonstrations_of(data, 0), encoders(data), loss_on="completion")
    (tmp_path / "pairs").mkdir()
    data = section(tmp_path / "pairs", pairs(1.0), max_length=4)
    with pytest.raises(DataError, match="no row ends in a trained EOS"):
        encode_comparisons(comparisons_of(data, 0), encoders(data))


def test_published_files_and_words(tmp_path: Path) -> None:
    data = section(tmp_path, sums(2))
    prepared = encode_demonstrations(demonstrations_of(data, 0), encoders(data), loss_on="completion")
    said: list[str] = []
    identities: list[object] = []
    run_dir = RunDir(tmp_path)
    prepared.publish(SimpleNamespace(dir=run_dir, say=said.append, identify=identities.append))
    assert identities == [prepared.identity]
    assert json.loads(run_dir.data_report.read_text()) == prepared.reports
    assert run_dir.samples.read_text() == prepared.samples
    assert prepared.samples.count("--- ") == 5
    assert said[0] == prepared.text
    assert said[1].endswith("0+0=⟦ 0<|end|>⟧")


def test_texts_for_a_tokenizer() -> None:
    dialog = (Message("user", "a"), Message("assistant", "b"))
    assert texts_of([Demonstration("p", "c", "f:1"), Demonstration((), dialog, "f:2")]) == [
        "p",
        "c",
        "",
        "a\nb",
    ]
