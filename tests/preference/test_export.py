"""What train-rm and dpo get: decided pairs and nothing else, read back by the package's own reader."""

import json
from pathlib import Path

import pytest
from small_store import MakeStore

from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.preference.export import export_preferences
from rlhf_cli.preference.store import Store, Vote
from rlhf_cli.preference.summary import summarise
from rlhf_cli.records import Comparison, Message

VOTES = ["1", "2", "tie", "both_bad", "skip", "1"]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """Six votes on eight pairs, of which one is identical and one undone."""
    answers = [(f"one {i}", f"two longer {i}") for i in range(1, 9)]
    answers[6] = ("same", "same ")
    store = make_store(answers)
    for pair_id, winner in enumerate(VOTES, 1):
        vote = Vote(pair_id, winner, "ana", "because" if winner == "2" else "")  # type: ignore[arg-type]
        store.vote(vote, key=str(pair_id))
    store.vote(Vote(8, "1", "ana"), key="8")
    store.undo("ana", key="undo")
    return store


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_only_decided_pairs_become_preferences(store: Store, tmp_path: Path):
    path = tmp_path / "preferences.jsonl"
    assert export_preferences(store, path, ties="drop") == 3
    assert [(r["pair_id"], r["chosen"], r["rejected"]) for r in rows(path)] == [
        (1, "one 1", "two longer 1"),
        (2, "two longer 2", "one 2"),
        (6, "one 6", "two longer 6"),
    ]
    assert rows(path)[1] == {
        "prompt": "ask 2",
        "chosen": "two longer 2",
        "rejected": "one 2",
        "pair_id": 2,
        "labeler": "ana",
        "source": {
            "chosen": {"model": "runs/sft", "temperature": 0.7},
            "rejected": {"model": "runs/sft", "temperature": 0.7},
        },
        "reason": "because",
    }


def test_ties_can_be_kept_as_halves(store: Store, tmp_path: Path):
    path = tmp_path / "preferences.jsonl"
    assert export_preferences(store, path, ties="half") == 4
    assert [(r["pair_id"], r.get("p_chosen")) for r in rows(path)] == [
        (1, None),
        (2, None),
        (3, 0.5),
        (6, None),
    ]
    assert [r.p_chosen for r in read_comparisons([Source(path=str(path))]).records] == [1.0, 1.0, 0.5, 1.0]


def test_every_pair_is_counted_once(store: Store):
    assert summarise(store) == {
        "num_pairs": 8,
        "num_votes": 6,
        "decided": 3,
        "ties": 1,
        "both_bad": 1,
        "skipped": 1,
        "identical_pairs": 1,
        "chosen_longer_rate": 1 / 3,
        # Pairs 1 and 6 went to response 1, pair 2 to response 2; odd pairs show response 2 first.
        "first_shown_win_rate": 1 / 3,
        "unfinished_rate": 0.0,
    }


def test_rates_over_nothing_are_left_out(make_store: MakeStore):
    summary = summarise(make_store(1))
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
    for pair_id in store.undecided():
        store.vote(Vote(pair_id, "1", "ana"), key=str(pair_id))
    path = tmp_path / "preferences.jsonl"
    export_preferences(store, path, ties="drop")
    reading = read_comparisons([Source(path=str(path))])
    assert "preference" in reading.formats[0]
    expected = [
        Comparison(
            prompt=(Message("user", f"ask {i}"),) if is_dialog else f"ask {i}",
            chosen=(Message("assistant", text),) if is_dialog else text,
            rejected=(Message("assistant", f"other {text}"),) if is_dialog else f"other {text}",
            origin=f"{path.name}:{i}",
        )
        for i, text in enumerate(ODD_TEXT, 1)
    ]
    assert [(r.prompt, r.chosen, r.rejected, r.p_chosen) for r in reading.records] == [
        (r.prompt, r.chosen, r.rejected, 1.0) for r in expected
    ]
    assert not reading.rejected


def test_an_export_that_fails_leaves_the_old_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "preferences.jsonl"
    export_preferences(store, path, ties="drop")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        export_preferences(store, path, ties="half")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.glob(".preferences*")] == []
