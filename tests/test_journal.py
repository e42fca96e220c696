from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sketchify_rt.batch import journal as module
from sketchify_rt.batch.journal import HIDDEN, Journal, Record
from sketchify_rt.errors import OutputError

DONE = Record(b"../in/a.jpg", 6, 7, 8, "settings", "converted", written=9)


def opened(root: Path | None) -> Journal:
    journal = Journal(root)
    journal.open()
    return journal


def test_rows_are_there_in_the_next_run(tmp_path: Path) -> None:
    failed = DONE._replace(status="failed", reason="is cut short", lasting=True, limits="9")
    with closing(opened(tmp_path)) as journal:
        assert journal.get(b"a.png") is None
        journal.put(b"a.png", DONE)
        journal.put(b"b.png", failed)
    with closing(opened(tmp_path)) as journal:
        assert journal.get(b"a.png") == DONE
        assert journal.get(b"b.png") == failed._replace(written=9)
        assert journal.get(b"c.png") is None


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = b"\xff\n\x01\xe4' --.png"
    with closing(opened(tmp_path)) as journal:
        journal.put(name, DONE._replace(source=name))
        assert journal.get(name) == DONE._replace(source=name)


def test_a_failure_does_not_forget_the_file_of_an_earlier_success(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.put(b"a.png", DONE)
        journal.put(b"a.png", DONE._replace(size=5, status="failed", written=None))
        assert journal.get(b"a.png") == DONE._replace(size=5, status="failed")
        journal.put(b"a.png", DONE._replace(written=10))
        assert journal.get(b"a.png") == DONE._replace(written=10)


def test_a_journal_without_a_folder_is_of_this_run_alone(tmp_path: Path) -> None:
    with closing(opened(None)) as journal:
        journal.put(b"a.png", DONE)
        journal.open()
        assert journal.get(b"a.png") == DONE
    assert not journal.exclusive
    assert opened(None).get(b"a.png") is None


def test_looking_creates_no_journal_and_reads_one(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        journal.open(create=False)
        assert journal.get(b"a.png") is None
    assert list(tmp_path.iterdir()) == []
    with closing(opened(tmp_path)) as journal:
        journal.put(b"a.png", DONE)
    with closing(Journal(tmp_path)) as journal:
        journal.open(create=False)
        assert journal.get(b"a.png") == DONE


def test_a_kill_loses_no_row(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from sketchify_rt.batch.journal import Journal, Record\n"
        "journal = Journal(pathlib.Path(sys.argv[1])); journal.open()\n"
        "for i in range(500):\n"
        "    journal.put(b'%d' % i, Record(b'', i, 0, None, '', 'converted', written=i))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    with closing(opened(tmp_path)) as journal:
        rows = [journal.get(b"%d" % i) for i in range(501)]
    assert [row and row.written for row in rows] == [*range(500), None]


def test_threads_write_all_rows(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:

        def put(first: int) -> None:
            for number in range(first, 400, 4):
                journal.put(b"%d" % number, DONE._replace(written=number))

        threads = [threading.Thread(target=put, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = [journal.get(b"%d" % number) for number in range(400)]
    assert [row and row.written for row in rows] == list(range(400))


def test_only_one_run_at_a_time_has_it_open(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from sketchify_rt.batch.journal import Journal\n"
        "Journal(pathlib.Path(sys.argv[1])).open()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with first:
        assert first.stdout
        assert first.stdout.readline() == b"open\n"
        for create in True, False:
            with pytest.raises(OutputError, match=f"{tmp_path}: another run converts into this"):
                Journal(tmp_path).open(create)
        first.kill()
    opened(tmp_path).close()  # no lock outlives its process


def test_a_journal_that_is_gone_is_begun_anew(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "out")) as journal:
        journal.put(b"a.png", DONE)
        journal.open()
        assert journal.get(b"a.png") == DONE
        shutil.rmtree(tmp_path / "out")
        journal.open()
        assert journal.get(b"a.png") is None
        journal.put(b"b.png", DONE)
    with closing(opened(tmp_path / "out")) as journal:
        assert journal.get(b"b.png") == DONE


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_journal_is_told_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / HIDDEN / "journal.sqlite3"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"journal.sqlite3: the journal is damaged .* Delete it"):
        opened(tmp_path)


def test_a_journal_of_another_version_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    path = tmp_path / HIDDEN / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="must have version 1, got 7: another version of"):
        opened(tmp_path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / HIDDEN / "journal.sqlite3").mkdir(parents=True)
    with pytest.raises(OutputError, match="unable to open database file; choose another"):
        opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        opened(tmp_path / "file")


def test_a_journal_that_cannot_be_written_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.put(b"a.png", DONE)

    def refuse(*_: object) -> sqlite3.Connection:  # as on a file system that is read-only
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_LOCK
        raise error

    monkeypatch.setattr(module, "_opened", refuse)
    with closing(Journal(tmp_path)) as journal:
        journal.open(create=False)
        assert journal.get(b"a.png") == DONE
        with pytest.raises(OutputError, match="attempt to write a readonly database"):
            journal.put(b"b.png", DONE)


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        assert journal._database
        (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match="is full; make room there") as caught:
            journal.put(b"a.png", DONE._replace(source=b"x" * 10**5))
        assert caught.value.errno == errno.ENOSPC


def test_file_systems_without_locks_are_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = sqlite3.connect

    def refuse(name: str, **options: object) -> sqlite3.Connection:
        if "unix-none" not in name:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_LOCK
            raise error
        return connect(name, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(module.sqlite3, "connect", refuse)
    with caplog.at_level(logging.WARNING), closing(opened(tmp_path)) as journal:
        journal.put(b"a.png", DONE)
    assert "the file system has no locks. Do not start two runs" in caplog.text
    monkeypatch.undo()
    with closing(opened(tmp_path)) as journal:
        assert journal.get(b"a.png") == DONE


def test_crashes_are_counted_until_a_name_survives(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.crashed(["a", "b"])
        journal.crashed(["a"])
    with closing(opened(tmp_path)) as journal:
        assert journal.crashes() == {"a": 2, "b": 1}
        journal.survived("a")
        assert journal.crashes() == {"b": 1}


@pytest.mark.slow
def test_a_million_rows_open_at_once_and_take_no_memory(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        assert journal._database
        journal._database.execute("BEGIN")
        for number in range(10**6):
            journal.put(b"folder/%d.png" % number, DONE)
        journal._database.execute("COMMIT")
    script = (
        "import resource, sys, time, pathlib\n"
        "from sketchify_rt.batch.journal import Journal\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, begun = peak(), time.perf_counter()\n"
        "journal = Journal(pathlib.Path(sys.argv[1])); journal.open()\n"
        "assert all(journal.get(b'folder/%d.png' % i) for i in range(0, 10**6, 1000))\n"
        "print(time.perf_counter() - begun, (peak() - before) / 1024)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    seconds, mebibytes = map(float, told.split())
    assert seconds < 1
    assert mebibytes < 20


def test_the_folder_is_hidden() -> None:
    assert HIDDEN.startswith(".")  # so that it is never an input
    assert os.sep not in HIDDEN
