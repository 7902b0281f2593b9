"""The tables of a store: made where they are missing, and brought up from older versions, after a backup."""

import re
import sqlite3
from pathlib import Path

from rlhf_cli.errors import DataError
from rlhf_cli.run.directory import fsync_path
from rlhf_cli.run.faults import fault_point

SCHEMA_VERSION = 2

_HERE = Path(__file__).parent
_NAMES = re.compile(r"^CREATE (?:TABLE|VIEW|(?:UNIQUE )?INDEX|TRIGGER) IF NOT EXISTS (\w+)", re.MULTILINE)


def bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of `schema.sql` in an empty file, or what an older file lacks of them, all or nothing.

    A file of version 1 is copied to `NAME.v1.db` beside it first. Raises DataError for a file that is no store, or
    one of a version to come.
    """
    version = _version(connection, path)
    if version == 1:
        _back_up(connection, path.with_suffix(f".v{version}.db"))
    schema = (_HERE / "schema.sql").read_text(encoding="utf-8")
    if version == SCHEMA_VERSION and set(_NAMES.findall(schema)) <= _names(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited.
        if _version(connection, path) == 1:
            schema = _script("1_to_2_before") + schema + _script("1_to_2_after")
        for statement in _statements(schema):
            connection.execute(statement)
        fault_point("database.commit", path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a store, 0 for an empty file."""
    names = _names(connection)
    if not names:
        return 0
    if "meta" not in names:
        raise DataError("an SQLite file, but not a collection", where=str(path), fix="choose another run_dir")
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None or row["value"] not in {str(known) for known in range(1, SCHEMA_VERSION + 1)}:
        found = "none" if row is None else row["value"]
        raise DataError(
            f"schema version {found}, this program reads up to {SCHEMA_VERSION}",
            where=str(path),
            fix="use the version of rlhf that wrote it, or choose another run_dir",
        )
    return int(row["value"])


def _back_up(connection: sqlite3.Connection, backup: Path) -> None:
    partial = backup.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    copy = sqlite3.connect(partial)
    connection.backup(copy)
    copy.close()
    fsync_path(partial)
    fault_point("database.backup", backup)
    partial.replace(backup)
    fsync_path(backup.parent)


def _names(connection: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}


def _script(name: str) -> str:
    return (_HERE / "migrations" / f"{name}.sql").read_text(encoding="utf-8")


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit first, and so undo the all-or-nothing."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
