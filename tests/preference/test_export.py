"""What train-rm and dpo get: decided pairs and nothing else, read back by the package's own reader."""

import json
from pathlib import Path

import pytest
from small_store import MakeStore

from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.errors import DataError
from rlhf_cli.preference.consensus import outcomes
from rlhf_cli.preference.export import ExportPolicy, export_preferences
from rlhf_cli.preference.store import Store, Vote
from rlhf_cli.preference.summary import summarise
from rlhf_cli.records import Message

VOTES = ["1", "2", "tie", "both_bad", "skip", "1"]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """Six votes on eight pairs, of which one is identical and one undone."""
    answers = [(f"one {i}", f"two longer {i}") for i in range(1, 9)]
    answers[6] = ("same", "same ")
    store = make_store(answers)
    for pair_id, winner in enumerate(VOTES, 1):
        vote = Vote(pair_id, winner, "ana", "because" if winner == "2" else "", first=1 + pair_id % 2)  # type: ignore[arg-type]
        store.vote(vote, key=str(pair_id))
    store.vote(Vote(8, "1", "ana"), key="8")
    store.undo("ana", key="undo")
    return store


def export(store: Store, folder: Path, **policy: object) -> list[dict[str, object]]:
    """Export, check the number of rows, and return them."""
    exported = export_preferences(store, outcomes(store.votes()), folder, ExportPolicy(**policy))  # type: ignore[arg-type]
    rows = read(exported.path)
    held_out = folder / "preferences.eval.jsonl"
    assert exported.num_rows == len(rows) + (len(read(held_out)) if held_out.exists() else 0)
    return rows


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def manifest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "export" / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_only_decided_pairs_become_preferences(store: Store, tmp_path: Path):
    rows = export(store, tmp_path)
    assert [(r["pair_id"], r["chosen"], r["rejected"]) for r in rows] == [
        (1, "one 1", "two longer 1"),
        (2, "two longer 2", "one 2"),
        (6, "one 6", "two longer 6"),
    ]
    source = {
        "model": "runs/sft",
        "model_digest": "d0",
        "temperature": 0.7,
        "top_p": 1.0,
        "seed": 2**63 - 1,
        "finish_reason": "stop",
    }
    assert rows[1] == {
        "prompt": "ask 2",
        "chosen": "two longer 2",
        "rejected": "one 2",
        "pair_id": 2,
        "labelers": ["ana"],
        "votes": {"chosen": 1, "rejected": 0, "of": 1},
        "source": {"chosen": source, "rejected": source},
        "reasons": ["because"],
    }


def test_what_is_left_out_is_counted_by_reason(store: Store, tmp_path: Path):
    export(store, tmp_path)
    said = manifest(tmp_path)
    assert said["pairs_left_out"] == {"tie": 1, "both_bad": 1, "skip": 1}
    assert said["identical_pairs"] == 1
    assert said["rows"] == {"preferences.jsonl": 3}


def test_ties_can_be_kept_as_halves(store: Store, tmp_path: Path):
    rows = export(store, tmp_path, ties="half")
    assert [(r["pair_id"], r.get("p_chosen")) for r in rows] == [(1, None), (2, None), (3, 0.5), (6, None)]
    reading = read_comparisons([Source(path=str(tmp_path / "preferences.jsonl"))])
    assert [record.p_chosen for record in reading.records] == [1.0, 1.0, 0.5, 1.0]


def test_ties_can_be_written_in_both_directions(store: Store, tmp_path: Path):
    tied = [row for row in export(store, tmp_path, ties="both-ways") if row["pair_id"] == 3]
    assert [(row["chosen"], row["rejected"]) for row in tied] == [
        ("one 3", "two longer 3"),
        ("two longer 3", "one 3"),
    ]


def test_ties_can_stop_the_export_and_keep_the_votes(store: Store, tmp_path: Path):
    with pytest.raises(DataError, match="1 of the pairs are tied"):
        export(store, tmp_path, ties="error")
    assert not (tmp_path / "preferences.jsonl").exists()
    assert store.num_votes() == 6


def test_two_people_who_disagree_make_a_tie_and_no_preference(make_store: MakeStore, tmp_path: Path):
    store = make_store(2)
    for name, winner in (("ana", "1"), ("ben", "2")):
        store.vote(Vote(1, winner, name), key=name)  # type: ignore[arg-type]
    assert export(store, tmp_path) == []
    assert manifest(tmp_path)["pairs_left_out"] == {"tie": 1}


def test_soft_labels_say_how_many_people_agree(make_store: MakeStore, tmp_path: Path):
    store = make_store(1)
    for name, winner in (("ana", "2"), ("ben", "2"), ("child", "1")):
        store.vote(Vote(1, winner, name), key=name)  # type: ignore[arg-type]
    (row,) = export(store, tmp_path, labels="soft")
    assert row["chosen"] == "two 1"
    assert row["p_chosen"] == pytest.approx(2 / 3)
    assert row["votes"] == {"chosen": 2, "rejected": 1, "of": 3}


def test_whole_prompts_are_held_out(make_store: MakeStore, tmp_path: Path):
    store = make_store(200)
    with store.transaction() as db:  # the same prompt four times, as other tools may send it
        db.execute("UPDATE prompts SET content = json_quote('ask ' || (id / 4))")
    for pair_id in store.undecided("ana"):
        store.vote(Vote(pair_id, "1", "ana"), key=str(pair_id))
    train = {str(row["prompt"]) for row in export(store, tmp_path, eval_fraction=0.3, seed=1)}
    evaluation = {str(row["prompt"]) for row in read(tmp_path / "preferences.eval.jsonl")}
    assert not train & evaluation
    assert len(train | evaluation) == 51
    assert 5 <= len(evaluation) <= 25


def test_every_pair_is_counted_once(store: Store):
    assert summarise(store, outcomes(store.votes())) == {
        "num_pairs": 8,
        "num_votes": 6,
        "decided": 3,
        "ties": 1,
        "both_bad": 1,
        "skipped": 1,
        "errors": 0,
        "identical_pairs": 1,
        "surplus_votes": 0,
        "chosen_longer_rate": 1 / 3,
        # Pairs 1 and 6 went to response 1, pair 2 to response 2; odd pairs show response 2 first.
        "first_shown_win_rate": 1 / 3,
        "unfinished_rate": 0.0,
    }


def test_rates_over_nothing_are_left_out(make_store: MakeStore):
    summary = summarise(make_store(1), [])
    assert "chosen_longer_rate" not in summary
    assert "first_shown_win_rate" not in summary


ODD_TEXT = [
    'say "hi"\n\n\tnow',
    "line\u2028sep \x85 \r\n \x0c",
    "\U0001f600 é 你好",
    " leading and trailing ",
    "{{x}} <|end|>",
]


@pytest.mark.parametrize("is_dialog", [False, True])
def test_rows_read_back_as_they_were(make_store: MakeStore, tmp_path: Path, is_dialog: bool):
    store = make_store([(text, f"other {text}") for text in ODD_TEXT], dialog=is_dialog)
    for pair_id in store.undecided("ana"):
        store.vote(Vote(pair_id, "1", "ana"), key=str(pair_id))
    export(store, tmp_path)
    reading = read_comparisons([Source(path=str(tmp_path / "preferences.jsonl"))])
    assert "preference" in reading.formats[0]
    assert [(r.prompt, r.chosen, r.rejected, r.p_chosen) for r in reading.records] == [
        (
            (Message("user", f"ask {i}"),) if is_dialog else f"ask {i}",
            (Message("assistant", text),) if is_dialog else text,
            (Message("assistant", f"other {text}"),) if is_dialog else f"other {text}",
            1.0,
        )
        for i, text in enumerate(ODD_TEXT, 1)
    ]
    assert not reading.rejected


def test_an_export_that_fails_leaves_the_old_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "preferences.jsonl"
    export(store, tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        export(store, tmp_path, ties="half")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.glob(".preferences*")] == []
