"""The store keeps every vote once, in the order of events, whoever asks for something else."""

import sqlite3
from datetime import date
from pathlib import Path

import pytest
from small_store import MakeStore, response

from rlhf_cli.errors import DataError, ResourceError, RunConflictError
from rlhf_cli.preference.database import file_system_type, is_network_type
from rlhf_cli.preference.store import WINNERS, Store, Vote
from rlhf_cli.records import Message, Prompt

COLUMNS = "key, presentation_id, winner, strength, reason, tags, seconds, raw"


def judgements(store: Store) -> list[tuple[str, int | None]]:
    with sqlite3.connect(store.path) as other:
        return other.execute("SELECT winner, supersedes FROM judgements ORDER BY id").fetchall()


def test_a_pair_comes_back_as_it_went_in(make_store: MakeStore):
    store = make_store(2, dialog=True)
    pair = store.pair(1)
    assert pair.prompt == (Message("user", "ask 1"),)
    assert pair.extra == {"key": 1}
    assert [r.text for r in pair.responses] == ["one 1", "two 1"]
    assert pair.responses[0] == response(1, 0, "one 1")
    assert [[r.text for r in pair.shown(first)] for first in (1, 2)] == [
        ["one 1", "two 1"],
        ["two 1", "one 1"],
    ]
    assert list(store.pairs()) == [store.pair(1), store.pair(2)]


def test_votes_survive_reopening(make_store: MakeStore):
    store = make_store(len(WINNERS) + 1)
    for pair_id, winner in enumerate(WINNERS, 1):
        store.vote(Vote(pair_id, winner, "ana", "because", 1.5, tags=("clear",), first=2), key=str(pair_id))
    with Store(store.path) as again:
        assert again.votes() == [
            Vote(i, w, "ana", "because", 1.5, tags=("clear",), first=2) for i, w in enumerate(WINNERS, 1)
        ]
        assert again.undecided("ana") == [len(WINNERS) + 1]
        assert again.undecided("ana", errors=True) == [len(WINNERS), len(WINNERS) + 1]
        assert again.num_votes() == again.num_votes("ana") == len(WINNERS)


def test_every_commit_is_synced_to_disk(make_store: MakeStore):
    db = make_store()._db
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_the_journal_does_without_shared_memory_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlhf_cli.preference.database.file_system_type", lambda path: "nfs4")
    with Store(tmp_path / "collect.db") as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 3


def test_file_systems_are_told_apart(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\nhost:/x /home nfs4 rw 0 0\nm /home/my\\040disk lustre rw 0 0\n"
        "auto /data autofs rw 0 0\nhost:/d /data nfs rw 0 0\n"
    )
    expected = {
        "/srv": "ext4",
        "/homes/a": "ext4",
        "/home/a/b": "nfs4",
        "/home/my disk/x": "lustre",
        "/data": "nfs",
    }
    assert {path: file_system_type(Path(path), mounts) for path in expected} == expected
    assert file_system_type(tmp_path, tmp_path / "none") == ""
    assert [is_network_type(kind) for kind in ("nfs4", "cifs", "fuse.sshfs")] == [True] * 3
    assert [is_network_type(kind) for kind in ("ext4", "overlay", "tmpfs", "xfs", "")] == [False] * 5


def test_the_same_vote_sent_again_is_one_row(make_store: MakeStore):
    store = make_store()
    for _ in range(10):
        store.vote(Vote(1, "2", "ana"), key="k")
    assert judgements(store) == [("2", None)]


def test_a_key_belongs_to_one_judgement(make_store: MakeStore):
    store = make_store()
    store.vote(Vote(1, "2", "ana"), key="k")
    for other in (Vote(1, "1", "ana"), Vote(2, "2", "ana"), Vote(1, "2", "ben")):
        with pytest.raises(RunConflictError, match="key"):
            store.vote(other, key="k")


def test_a_decided_pair_takes_no_second_vote_of_the_same_labeler(make_store: MakeStore):
    store = make_store()
    store.vote(Vote(1, "2", "ana"), key="k1")
    with pytest.raises(RunConflictError, match="decided"):
        store.vote(Vote(1, "1", "ana"), key="k2")
    store.vote(Vote(1, "1", "ben"), key="k3")
    assert store.votes() == [Vote(1, "2", "ana"), Vote(1, "1", "ben")]
    assert (store.undecided("ana"), store.undecided("r")) == ([2, 3], [1, 2, 3])


def test_an_error_gives_way_to_what_the_machine_says_later(make_store: MakeStore):
    store = make_store()
    store.add_labeler("m", "judge", {"prompt": "abc"})
    store.vote(Vote(1, "error", "m", raw="no verdict", first=0), key="k1")
    better = Vote(1, "1", "m", p_first_response=0.75, raw="[[A]]", first=0)
    store.vote(better, key="k2")
    assert store.votes() == [better]
    assert judgements(store) == [("error", None), ("1", 1)]
    assert store.num_votes("m") == 1


def test_a_name_belongs_to_one_labeler(make_store: MakeStore):
    store = make_store()
    store.add_labeler("m", "judge", {"prompt": "abc", "model": "x"})
    store.add_labeler("m", "judge", {"model": "x", "prompt": "abc"})
    assert store.labelers()["m"] == ("judge", {"prompt": "abc", "model": "x"})
    with pytest.raises(RunConflictError, match=r"human 'm'|judge 'm'"):
        store.add_labeler("m", "judge", {"prompt": "changed", "model": "x"})
    with pytest.raises(RunConflictError, match=r"another name|judge 'm'"):
        store.add_labeler("m", "human", {})


def test_nobody_votes_who_is_not_known(make_store: MakeStore):
    store = make_store()
    with pytest.raises(RunConflictError):
        store.vote(Vote(1, "1", "stranger"), key="k1")
    assert store.votes() == []


def test_undo_adds_a_row_and_the_pair_is_asked_again(make_store: MakeStore):
    store = make_store()
    store.vote(Vote(1, "1", "ana"), key="k1")
    store.vote(Vote(2, "1", "ana"), key="k2")
    assert store.undo("ana", key="k3") == 2
    assert store.undecided("ana") == [2, 3]
    assert store.undo("ana", key="k4") == 1
    assert store.undo("ana", key="k5") is None
    store.vote(Vote(2, "tie", "ana"), key="k6")
    assert store.votes() == [Vote(2, "tie", "ana")]
    assert judgements(store) == [("1", None), ("1", None), ("undone", 2), ("undone", 1), ("tie", 3)]


def test_undo_leaves_the_votes_of_others_alone(make_store: MakeStore):
    store = make_store()
    store.vote(Vote(1, "1", "ana"), key="k1")
    store.vote(Vote(2, "1", "ben"), key="k2")
    assert store.undo("ana", key="k3") == 1
    assert store.votes() == [Vote(2, "1", "ben")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE judgements SET winner = '2'",
        "DELETE FROM judgements",
        f"INSERT OR REPLACE INTO judgements (id, {COLUMNS}) VALUES (1, 'k1', 1, '2', 0, '', '[]', 0, '')",
        f"INSERT INTO judgements ({COLUMNS}) VALUES ('k9', 1, '2', 0, '', '[]', 0, '')",
        f"INSERT INTO judgements ({COLUMNS}, supersedes) VALUES ('k9', 1, '2', 0, '', '[]', 0, '', 1)",
        f"INSERT INTO judgements ({COLUMNS}) VALUES ('k9', 2, 'A', 0, '', '[]', 0, '')",
        f"INSERT INTO judgements ({COLUMNS}) VALUES ('k9', 2, 'tie', 1, '', '[]', 0, '')",
        f"INSERT INTO judgements ({COLUMNS}) VALUES ('k9', 2, '1', 4, '', '[]', 0, '')",
        f"INSERT INTO judgements ({COLUMNS}) VALUES ('k9', 99, '1', 0, '', '[]', 0, '')",
        "INSERT INTO presentations (pair_id, labeler, first) VALUES (1, 'ana', 2)",
        "INSERT INTO presentations (pair_id, labeler, first) VALUES (2, 'eve', 2)",
        "UPDATE labelers SET kind = 'judge'",
        "DELETE FROM labelers",
        "UPDATE presentations SET first = 3 - first",
        "DELETE FROM presentations",
        "UPDATE responses SET text = ''",
        "DELETE FROM responses",
    ],
)
def test_nothing_written_can_be_changed(make_store: MakeStore, statement: str):
    store = make_store()
    store.vote(Vote(1, "1", "ana"), key="k1")
    store.undo("ana", key="k2")
    store.vote(Vote(1, "1", "ana"), key="k3")
    before = list(store._db.iterdump())
    with pytest.raises(sqlite3.IntegrityError):
        store._db.execute(statement)
    assert list(store._db.iterdump()) == before


def test_responses_are_stored_all_or_none(make_store: MakeStore):
    store = make_store(2)
    new = [response(1, 2, "three"), response(1, 0, "again")]
    with pytest.raises(RunConflictError):
        store.add_responses(new)
    assert store.unanswered(0, 2) == [1, 2]


def test_unanswered_and_digests(make_store: MakeStore):
    store = make_store(3)
    store.add_responses([response(2, 2, "three", digest="d1")])
    assert store.unanswered(0, 0) == []
    assert store.unanswered(0, 2) == [1, 3]
    assert store.unanswered(1, 0) == [1, 2, 3]
    assert store.digests(0) == {"d0", "d1"}
    assert store.digests(1) == set()


def test_identical_answers_are_not_asked(make_store: MakeStore):
    store = make_store([("a b", "a  b\n"), ("a", "b"), ("", " ")])
    assert store.undecided("ana") == [2]
    assert (store.num_pairs(identical=True), store.num_pairs(identical=False)) == (2, 1)


def test_prompts_come_once_and_come_back(tmp_path: Path):
    dialog = (Message("system", "Be kind."), Message("user", "\U0001f600 \u2028 \x00 \ud800"))
    prompts = [
        Prompt("ask 1", "p.jsonl:1", {"answer": 1.5}),
        Prompt(dialog, "p.jsonl:2", {"day": date(2026, 1, 2)}),
    ]
    with Store(tmp_path / "collect.db") as store:
        assert store.prompts() == []
        store.add_prompts(prompts)
        back = store.prompts()
        assert [(p.prompt, p.origin) for p in back] == [(p.prompt, p.origin) for p in prompts]
        assert [p.extra for p in back] == [{"answer": 1.5}, {"day": "2026-01-02"}]
        with pytest.raises(RunConflictError):
            store.add_prompts(prompts)


def test_other_files_are_refused(tmp_path: Path):
    text = tmp_path / "text.db"
    text.write_text("no database, " * 100)
    with pytest.raises(DataError):
        Store(text)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(DataError, match="not a collection"):
        Store(foreign)
    newer = tmp_path / "newer.db"
    with Store(newer) as store:
        store.note("schema_version", "3")
    with pytest.raises(DataError, match="version 3"):
        Store(newer)
    with pytest.raises(ResourceError):
        Store(tmp_path / "missing" / "collect.db")


def test_a_second_writer_is_named_as_the_cause(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlhf_cli.preference.database._BUSY_SECONDS", 0.05)
    store = make_store()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store(store.path) as second, pytest.raises(RunConflictError, match="locked"):
        second.vote(Vote(1, "1", "ana"), key="k")
    other.close()
    store.vote(Vote(1, "1", "ana"), key="k")


def test_a_full_disk_refuses_the_vote_and_keeps_the_others(make_store: MakeStore):
    store = make_store()
    store.vote(Vote(1, "1", "ana"), key="k1")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ResourceError, match="full"):
        store.vote(Vote(2, "1", "ana", reason="long " * 10_000), key="k2")
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.vote(Vote(2, "2", "ana"), key="k2")
    assert [vote.winner for vote in store.votes()] == ["1", "2"]
