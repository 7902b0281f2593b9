"""A SQLite file that keeps what it acknowledged: a journal that suits its file system, all-or-nothing writes."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_cli.errors import DataError, ResourceError, RlhfError, RunConflictError
from rlhf_cli.preference.migration import bring_up_to_date
from rlhf_cli.run.faults import fault_point

_BUSY_SECONDS = 5.0
_MOUNTS = Path("/proc/mounts")
_REFUSED = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
# Write-ahead logging needs memory shared by all processes, which these cannot give.
_NETWORK = re.compile(
    r"nfs|cifs|smb|9p|afs|lustre|gpfs|ceph|beegfs|glusterfs|pvfs|orangefs|wekafs|panfs|virtiofs|fuse\."
)


def connect(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open `path`, creating it with the schema beside this file, or migrating it from an older version.

    Every commit is on disk when it returns. With `any_thread`, whoever shares the connection takes turns by a lock
    of their own. Raises DataError for a file that is no store, or of a version to come.
    """
    with refusing(path):
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=not any_thread
        )
        connection.row_factory = sqlite3.Row
        try:
            _configure(connection, on_network=is_network_type(file_system_type(path)))
            bring_up_to_date(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _configure(connection: sqlite3.Connection, *, on_network: bool) -> None:
    connection.execute(f"PRAGMA journal_mode = {'DELETE' if on_network else 'WAL'}")
    # EXTRA also syncs the folder once the rollback journal is gone: else power loss undoes the last vote.
    connection.execute(f"PRAGMA synchronous = {'EXTRA' if on_network else 'FULL'}")
    connection.execute("PRAGMA foreign_keys = ON")
    # Otherwise INSERT OR REPLACE deletes rows without asking the append-only triggers.
    connection.execute("PRAGMA recursive_triggers = ON")


@contextmanager
def writing(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """Do everything inside or nothing; committed and on disk when the block ends."""
    with refusing(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            fault_point("database.commit", path)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has already rolled back
                connection.execute("ROLLBACK")
            raise
        fault_point("database.committed", path)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what SQLite says into our errors."""
    try:
        yield
    except sqlite3.ProgrammingError:  # ours, and without an error code
        raise
    except sqlite3.Error as error:
        raise _explain(error, path) or error from error


def _explain(error: sqlite3.Error, path: Path) -> RlhfError | None:
    code = error.sqlite_errorcode & 0xFF  # the low byte is the primary code
    where, message = str(path), str(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunConflictError(message, where=where, fix="stop the other process that writes to this run")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return RunConflictError(message, where=where, fix="let only one process write to this run")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(message, where=where, fix="restore the file from a backup, or start with --fresh")
    if code in _REFUSED:
        return ResourceError(
            message, where=where, fix="make room, or the folder writable; nothing saved is lost"
        )
    return None


def file_system_type(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system under `path`, such as "ext4"; "" where the system does not say."""
    if not mounts.exists():
        return ""
    place = path.resolve()
    best, kind = -1, ""
    for line in mounts.read_text(errors="replace").splitlines():
        _, mounted, fs_type, *_ = line.split(" ")
        folder = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mounted))
        # The later of two mounts on one folder hides the earlier.
        if place.is_relative_to(folder) and len(folder.parts) >= best:
            best, kind = len(folder.parts), fs_type
    return kind


def is_network_type(fs_type: str) -> bool:
    """Say whether a file system of this type may be shared between machines."""
    return _NETWORK.match(fs_type) is not None
