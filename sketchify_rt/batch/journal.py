"""The journal: what became of each result, in a SQLite database in the output folder.

The next run reads it to skip what is done. Rows are keyed by the path of the result below the
output folder, and sources are relative to it too, so that both folders can be moved together.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sketchify_rt.errors import OutputError
from sketchify_rt.files import explained, probe

log = logging.getLogger("sketchify_rt")

HIDDEN = ".sketchify-rt"
"""Folder in the output folder. It is hidden, so its files are never inputs."""

_VERSION = 1  # of the tables
_TABLES = """
CREATE TABLE results (
    output BLOB PRIMARY KEY, source BLOB, size INTEGER, modified INTEGER, content INTEGER,
    settings TEXT, status TEXT, reason TEXT, lasting INTEGER, limits TEXT, written INTEGER
) WITHOUT ROWID;
CREATE TABLE crashes (name TEXT PRIMARY KEY, times INTEGER) WITHOUT ROWID;
"""

Status = Literal["converted", "replacing", "flawed", "failed"]


class Record(NamedTuple):
    """One row.

    Attributes:
        source: Path of the input, and of the page in it, relative to the output folder.
        size: Bytes of the input.
        modified: Time of its last change in nanoseconds.
        content: Checksum of the input, see `item.Item.content`. None where it was not read.
        settings: Digest of all that the result depends on, see `resume.Settings`.
        status: "converted" is done. "replacing" was about to replace an older result. "flawed" is
            an archive in which some pages are not converted. "failed" has no new result.
        reason: Why it is flawed or failed, else "".
        lasting: Whether the input is to blame, so that it would fail again.
        limits: Limits such as max_pixels, if it failed within them for good.
        written: Bytes of the file that was written last; None if there never was one.
    """

    source: bytes
    size: int
    modified: int
    content: int | None
    settings: str
    status: Status
    reason: str = ""
    lasting: bool = False
    limits: str = ""
    written: int | None = None


_COLUMNS = ", ".join(Record._fields)
_SELECT = f"SELECT {_COLUMNS} FROM results WHERE output = ?"  # noqa: S608 (names of fields)
# A failure says nothing about the file of an earlier success, which is still ours.
_UPSERT = f"""
INSERT INTO results (output, {_COLUMNS}) VALUES (?{", ?" * len(Record._fields)})
ON CONFLICT (output) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in Record._fields[:-1])},
    written = coalesce(excluded.written, written)
"""  # noqa: S608


class Journal:
    """The database. Thread-safe. Only one process at a time can open it.

    A row takes some 40 µs. It is on the disk when the process ends, however that comes; after a
    power cut the last rows may be missing.
    """

    def __init__(self, root: Path | None) -> None:
        """Opens nothing yet.

        Args:
            root: The output folder; None to keep rows in memory only.
        """
        self._path = root and root / HIDDEN / "journal.sqlite3"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @property
    def exclusive(self) -> bool:
        """Whether no other process can have the journal open."""
        return self._path is not None

    def open(self, create: bool = True) -> None:
        """Opens the database, or opens a new one if it was deleted meanwhile.

        Args:
            create: Create the database if there is none; else rows are kept in memory.

        Raises:
            OutputError: It cannot be opened, or another run has it open.
        """
        path = self._path
        if self._database is not None and (path is None or path.exists()):
            return
        self.close()
        if path is None or not (create or os.path.exists(path)):  # noqa: PTH110 (which may raise)
            self._database = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            self._database.executescript(_TABLES)
            return
        if create:
            probe(path.parent)  # says more than SQLite of what is wrong
        try:
            self._database = _connect(path, read_only=not create)
        except sqlite3.Error as error:
            raise self._explained(path, error) from error
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            self.close()
            raise OutputError(
                f"{path}: the journal must have version {_VERSION}, got {version}: another version "
                "of sketchify-rt wrote it. Use that version, or choose another output folder"
            )

    def _explained(self, path: Path, error: sqlite3.Error) -> OutputError:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            return OutputError(
                f"{path.parent.parent}: another run converts into this folder. Wait for its end, "
                "or choose another output folder"
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return OutputError(
                f"{path}: the journal is damaged ({error}). Delete it, and give --skip-existing or "
                "--overwrite for the results that are there"
            )
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else None
        return explained(path, OSError(number, str(error)))

    def get(self, output: bytes) -> Record | None:
        """Returns the row of a result.

        Args:
            output: Path of the result below the output folder.

        Raises:
            OutputError: It cannot be read.
        """
        row = self._execute(_SELECT, (output,)).fetchone()
        return Record(*row) if row else None

    def put(self, output: bytes, record: Record) -> None:
        """Writes the row of a result. Raises OutputError."""
        self._execute(_UPSERT, (output, *record))

    def crashed(self, names: Iterable[str]) -> None:
        """Counts one more crash for each name, see `staging`. Raises OutputError."""
        for name in names:
            self._execute(
                "INSERT INTO crashes VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET times = times + 1",
                (name,),
            )

    def crashes(self) -> dict[str, int]:
        """Returns how many runs crashed with each name in work. Raises OutputError."""
        return dict(self._execute("SELECT name, times FROM crashes"))

    def survived(self, name: str) -> None:
        """Forgets the crashes of a name. Raises OutputError."""
        self._execute("DELETE FROM crashes WHERE name = ?", (name,))

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._lock:
            assert self._database is not None, "the journal is not open"  # noqa: S101
            try:
                return self._database.execute(statement, values)
            except sqlite3.Error as error:
                raise self._explained(self._path or Path(":memory:"), error) from error

    def close(self) -> None:
        """Closes the database, so that other runs can open it."""
        with self._lock:
            if self._database is not None:
                with suppress(sqlite3.Error):
                    self._database.close()
            self._database = None


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """Opens and locks the database. Raises sqlite3.Error.

    Args:
        path: The file.
        read_only: Read it without a lock if it cannot be written.
    """
    try:
        return _opened(path, "")
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if read_only and code != sqlite3.SQLITE_BUSY:
            return _at(path, "?immutable=1")
        # These come from file systems without locks.
        if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
            raise
    database = _opened(path, "?vfs=unix-none")
    log.warning(
        "%s: the file system has no locks. Do not start two runs with this output folder",
        path.parent.parent,
    )
    return database


def _at(path: Path, query: str) -> sqlite3.Connection:
    return sqlite3.connect(
        path.absolute().as_uri() + query,
        uri=True,
        timeout=0,
        isolation_level=None,  # each statement is a transaction
        check_same_thread=False,
    )


def _opened(path: Path, query: str) -> sqlite3.Connection:
    database = _at(path, query)
    try:
        # EXCLUSIVE before WAL, so that no shared memory is needed. It locks nothing by itself.
        database.executescript(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
            "PRAGMA synchronous = NORMAL; BEGIN EXCLUSIVE; COMMIT"
        )
        if not database.execute("PRAGMA user_version").fetchone()[0]:
            tables = f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT"
            database.executescript(tables)
    except BaseException:
        database.close()
        raise
    return database
