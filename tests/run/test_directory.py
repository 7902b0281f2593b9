"""Atomic writes, published directories, digests, JSON lines."""

import hashlib
import os

import pytest

from rlhf_cli.run.directory import (
    append_json_line,
    digest_dir,
    publish_dir,
    read_json_lines,
    sha256_file,
    sweep,
    write_atomic,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "né".encode())
    assert path.read_text() == "né"
    assert names_in(tmp_path) == ["a.txt"]


def test_write_atomic_that_fails_keeps_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def broken_fsync(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken_fsync)
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def filled(path, text):
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "f").write_text(text)
    return path


def test_publish_dir_renames_the_whole_directory(tmp_path):
    publish_dir(filled(tmp_path / "tmp", "x"), tmp_path / "final")
    assert (tmp_path / "final" / "inner" / "f").read_text() == "x"
    assert names_in(tmp_path) == ["final"]


def test_publish_dir_refuses_to_replace_unless_told(tmp_path):
    publish_dir(filled(tmp_path / "tmp", "old"), tmp_path / "final")
    with pytest.raises(OSError, match="not empty"):
        publish_dir(filled(tmp_path / "tmp", "new"), tmp_path / "final")
    assert (tmp_path / "final" / "inner" / "f").read_text() == "old"
    publish_dir(tmp_path / "tmp", tmp_path / "final", replace=True)
    assert (tmp_path / "final" / "inner" / "f").read_text() == "new"
    assert names_in(tmp_path) == ["final"]


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_dir_is_over_sorted_names_and_hashes(tmp_path):
    (tmp_path / "b").write_bytes(b"abc")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    expected = hashlib.sha256(f"{empty}  a/c\n{abc}  b\n".encode()).hexdigest()
    assert digest_dir(tmp_path) == expected
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    assert digest_dir(tmp_path) == expected
    (tmp_path / "b").rename(tmp_path / "d")
    assert digest_dir(tmp_path) != expected


def test_json_lines_survive_a_torn_line(tmp_path):
    path = tmp_path / "x.jsonl"
    append_json_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "te')
    append_json_line(path, {"n": 3})
    assert list(read_json_lines(path)) == [{"n": 1}, {"n": 3}]
    assert list(read_json_lines(tmp_path / "none")) == []


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path):
    left = [".manifest.json.tmp-0123abcd", ".report.html.tmp-ffffffff"]
    kept = ["manifest.json", ".lock", ".hidden.tmp-file", "notes.tmp-0123abcd", ".tmp-model"]
    for name in (*left, *kept):
        (tmp_path / name).write_text("x")
    (tmp_path / ".model.del-0123abcd" / "deep").mkdir(parents=True)
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    sweep(tmp_path / "missing")
