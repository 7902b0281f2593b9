"""Answers that people write: each prompt to one of them, nothing lost, rows that `rlhf sft` reads as they are."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from small_store import MakeStore, response

from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_demonstrations
from rlhf_cli.errors import RunConflictError, UsageError
from rlhf_cli.preference.demonstrations import demonstration_rows, summarise_writings
from rlhf_cli.preference.editor import CommandEditor, ScriptedEditor, find_editor
from rlhf_cli.preference.export import json_lines
from rlhf_cli.preference.keys import ScriptedKeys
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.terminal_writing import TerminalWriter, ask_writer
from rlhf_cli.preference.writing import Writing, WritingDesk
from rlhf_cli.records import Demonstration, Message, Prompt

TALK = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three prompts: a string, a question with a draft, and a conversation."""
    store = Store(tmp_path / "collect.db")
    prompts = ["Once upon", (Message("user", "Why?"),), TALK]
    store.add_prompts([Prompt(prompt, f"p.jsonl:{i}") for i, prompt in enumerate(prompts, 1)])
    store.add_responses([response(2, 0, "Because.")])
    return store


def write(desk: WritingDesk, name: str, text: str, key: str) -> None:
    task = desk.next(name)
    assert task is not None
    desk.write(Writing(task.prompt_id, name, "written", text, 2.0), key=key)


def test_two_people_never_write_on_one_prompt(store: Store):
    with WritingDesk(store) as desk:
        ana, ben = desk.next("ana"), desk.next("ben")
        assert ana is not None
        assert ben is not None
        assert (ana.prompt_id, ben.prompt_id) == (1, 2)
        assert desk.next("ana") == ana
        assert ben.draft == "Because."
        desk.release("ana")
        write(desk, "cleo", " a time", "k1")
        assert [w.prompt_id for w in desk.writings()] == [1]


def test_a_lease_that_ran_out_goes_to_others_and_a_late_answer_is_kept(store: Store):
    now = [0.0]
    with WritingDesk(store, lease_seconds=60, clock=lambda: now[0]) as desk:
        assert desk.next("ana") is not None
        now[0] = 61.0
        write(desk, "ben", "of ben", "k1")
        desk.write(Writing(1, "ana", "written", "of ana"), key="k2")
        assert [(w.prompt_id, w.text) for w in desk.writings()] == [(1, "of ben"), (1, "of ana")]
        assert desk.progress("ana").done == 1


def test_an_answer_sent_again_is_one_row_and_undo_gives_it_back_as_draft(store: Store):
    with WritingDesk(store) as desk:
        for _ in range(2):
            desk.write(Writing(1, "ana", "written", "first try"), key="k1") if desk.next("ana") else None
        with pytest.raises(RunConflictError, match="answered already"):
            desk.write(Writing(1, "ana", "written", "again"), key="k2")
        with pytest.raises(RunConflictError, match="no prompt 9"):
            desk.write(Writing(9, "ana", "written", "to nothing"), key="k9")
        with pytest.raises(RunConflictError, match="another answer"):
            desk.write(Writing(2, "ana", "written", "again"), key="k1")
        for _ in range(2):
            task = desk.undo("ana", key="u1")
            assert task is not None
            assert (task.prompt_id, task.draft) == (1, "first try")
        assert desk.writings() == []
        assert desk.undo("ana", key="u2") is None
        write(desk, "ana", "second try", "k3")
        assert [w.text for w in desk.writings()] == ["second try"]
    assert store.rows("SELECT COUNT(*) FROM demonstrations")[0][0] == 3


def test_nothing_written_can_be_changed(store: Store):
    with WritingDesk(store) as desk:
        write(desk, "ana", "x", "k1")
    for statement in ("UPDATE demonstrations SET text = ''", "DELETE FROM demonstrations"):
        with pytest.raises(RunConflictError, match="append-only"), store.transaction() as db:
            db.execute(statement)


def test_rows_are_read_by_sft_as_they_are(store: Store, tmp_path: Path):
    with WritingDesk(store) as desk:
        write(desk, "ana", " a time.\n\nThe end", "k1")
        write(desk, "ana", "Because", "k2")
        write(desk, "ana", "Bye!", "k3")
        assert desk.next("ana") is None
    rows = demonstration_rows(store)
    assert rows[0]["labeler"] == "ana"
    assert "draft" not in rows[0]
    assert rows[1]["draft_changed"] is True
    assert rows[1]["draft"]["model"] == "runs/sft"  # type: ignore[index]
    path = tmp_path / "demonstrations.jsonl"
    path.write_bytes(json_lines(rows))
    reading = read_demonstrations([Source(path=str(path))])
    assert reading.records == [
        Demonstration("Once upon", " a time.\n\nThe end", f"{path}:1"),
        Demonstration((Message("user", "Why?"),), (Message("assistant", "Because"),), f"{path}:2"),
        Demonstration(TALK, (Message("assistant", "Bye!"),), f"{path}:3"),
    ]
    assert summarise_writings(store) == {
        "num_prompts": 3,
        "num_written": 3,
        "num_skipped": 0,
        "num_people": 1,
        "median_seconds": 2.0,
        "median_characters": 7,
        "unchanged_rate": 0.0,
    }


def sitting(store: Store, *keys: str, texts: tuple[str, ...] = ()) -> tuple[list[int], ScriptedEditor, str]:
    console = Console(file=io.StringIO(), width=80, color_system=None, highlight=False)
    editor = ScriptedEditor(*texts)
    with WritingDesk(store) as desk:
        writer = TerminalWriter(console, ScriptedKeys(*keys), editor, name="ana")
        done = list(ask_writer(desk, writer))
    assert isinstance(console.file, io.StringIO)
    return done, editor, console.file.getvalue()


def test_a_sitting_at_the_terminal(store: Store):
    keys = ("y", "e", "y", "u", "y", "e", "e", "y", "s")
    done, editor, shown = sitting(store, *keys, texts=(" a time", "Because of", "Because of it"))
    assert done == [1, 0, 1, 2, 3]
    assert editor.drafts == ["", "Because.", "Because of"]
    assert "nothing to save" in shown
    with WritingDesk(store) as desk:
        assert [(w.outcome, w.text) for w in desk.writings()] == [
            ("written", " a time"),
            ("written", "Because of it"),
            ("skip", ""),
        ]


def test_quitting_leaves_the_prompt_to_others(store: Store):
    assert sitting(store, "q")[0] == []
    with WritingDesk(store) as desk:
        task = desk.next("ben")
    assert task is not None
    assert task.prompt_id == 1


def test_a_real_editor_sees_draft_and_prompt_and_its_file_stays_until_stored(tmp_path: Path):
    script = tmp_path / "ed.sh"
    script.write_text('#!/bin/sh\ngrep -q "Why is that" "$1" && sed -i "1s/$/ and more/" "$1"\n')
    editor = CommandEditor(["sh", str(script)], tmp_path / "drafts")
    assert editor.edit("p1", "a draft", "Why is that?") == "a draft and more"
    assert editor.edit("p1", "ignored: the file knows better", "") == "a draft and more and more"
    editor.forget("p1")
    assert list((tmp_path / "drafts").iterdir()) == []


@pytest.mark.parametrize("command", [["false"], ["/no/such/editor"]])
def test_an_editor_that_fails_is_said(tmp_path: Path, command: list[str]):
    with pytest.raises(UsageError):
        CommandEditor(command, tmp_path / "drafts").edit("p1", "text", "prompt")
    assert (tmp_path / "drafts" / "p1.md").read_text().startswith("text\n")


def test_the_editor_is_the_persons_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDITOR", "code --wait")
    monkeypatch.delenv("VISUAL", raising=False)
    assert find_editor() == ["code", "--wait"]
    monkeypatch.setenv("VISUAL", "vi")
    assert find_editor() == ["vi"]
    for name in ("VISUAL", "EDITOR", "PATH"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UsageError, match="no editor"):
        find_editor()


def test_a_store_made_before_has_the_new_tables(make_store: MakeStore):
    store = make_store(2)
    with store.transaction() as db:
        db.execute("DROP VIEW writings")
        db.execute("DROP TABLE demonstrations")
        db.execute("DROP TABLE writing_leases")
    with Store(store.path) as again, WritingDesk(again) as desk:
        assert json.dumps(desk.progress("ana").total) == "2"
