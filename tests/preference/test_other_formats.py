"""Every shape we write is read back to the same comparisons; what a shape cannot say is left out and counted."""

import json
from pathlib import Path

import pytest
from small_store import MakeStore

from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.preference.consensus import outcomes
from rlhf_cli.preference.export import ExportPolicy, Format, export_preferences
from rlhf_cli.preference.store import Store, Vote

FILES: dict[Format, str] = {
    "parquet": "preferences.parquet",
    "trl": "trl.jsonl",
    "hh": "hh.jsonl",
    "argilla": "argilla.jsonl",
    "label_studio": "label_studio.json",
}


def voted(make_store: MakeStore, *ballots: str, dialog: bool = True) -> Store:
    """Store one pair for each ballot, such as "112": ana and ben for response 1, child for response 2."""
    store = make_store(len(ballots), dialog=dialog)
    winners = {"1": "1", "2": "2", "t": "tie", "b": "both_bad", "s": "skip"}
    for pair_id, ballot in enumerate(ballots, 1):
        for name, letter in zip(("ana", "ben", "child"), ballot, strict=False):
            store.vote(Vote(pair_id, winners[letter], name, seconds=2.5), key=f"{pair_id}{name}")  # type: ignore[arg-type]
    return store


def export(store: Store, folder: Path, **policy: object) -> dict[str, int]:
    """Export in every format; return what each file leaves out."""
    decided = outcomes(store.votes())
    export_preferences(store, decided, folder, ExportPolicy(**policy), list(FILES))  # type: ignore[arg-type]
    files = json.loads((folder / "export" / "manifest.json").read_text())["files"]
    return {name: files[file]["left_out"] for name, file in FILES.items()}


@pytest.mark.parametrize("dialog", [True, False])
def test_every_file_holds_the_same_comparisons(make_store: MakeStore, tmp_path: Path, *, dialog: bool):
    store = voted(make_store, "1", "2", "112", "221", "2s", dialog=dialog)
    assert set(export(store, tmp_path).values()) == {0}
    for file in FILES.values():
        records = read_comparisons([Source(path=str(tmp_path / "export" / file))]).records
        texts = [
            [part if isinstance(part, str) else part[-1].content for part in (r.prompt, r.chosen)]
            for r in records
        ]
        assert texts == [
            [f"ask {i}", f"{side} {i}"] for i, side in enumerate(("one", "two", "one", "two", "two"), 1)
        ]


def test_a_tie_stays_a_tie_or_is_left_out_and_counted(make_store: MakeStore, tmp_path: Path):
    store = voted(make_store, "1", "t", "12")
    left_out = export(store, tmp_path, ties="half")
    assert left_out == {"parquet": 0, "trl": 2, "hh": 2, "argilla": 0, "label_studio": 1}
    for name, ties in (("parquet", 2), ("argilla", 2), ("label_studio", 1), ("trl", 0), ("hh", 0)):
        records = read_comparisons([Source(path=str(tmp_path / "export" / FILES[name]))]).records  # type: ignore[index]
        assert [record.p_chosen for record in records].count(0.5) == ties, name


def test_both_bad_and_skips_are_in_no_file(make_store: MakeStore, tmp_path: Path):
    export(voted(make_store, "b", "s", "1"), tmp_path)
    for file in FILES.values():
        assert len(read_comparisons([Source(path=str(tmp_path / "export" / file))]).records) == 1


def test_a_text_that_spells_a_turn_does_not_go_into_a_transcript(make_store: MakeStore, tmp_path: Path):
    store = make_store([("fine", "also fine"), ("yes\n\nHuman: and now?", "no")])
    for pair_id in (1, 2):
        store.vote(Vote(pair_id, "1", "ana"), key=str(pair_id))
    assert export(store, tmp_path)["hh"] == 1


def test_everybodys_vote_is_in_the_files_of_annotation_tools(make_store: MakeStore, tmp_path: Path):
    export(voted(make_store, "112s"), tmp_path)
    (task,) = json.loads((tmp_path / "export" / "label_studio.json").read_text())
    votes = [(a["completed_by"], a["lead_time"], a["was_cancelled"]) for a in task["annotations"]]
    assert votes == [("ana", 2.5, False), ("ben", 2.5, False), ("child", 2.5, False)]
    record = json.loads((tmp_path / "export" / "argilla.jsonl").read_text())
    assert [r["value"] for r in record["responses"]["preference"]] == [
        "response_1",
        "response_1",
        "response_2",
    ]
