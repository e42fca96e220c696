from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sketchify_rt import files
from sketchify_rt.errors import OutputError
from sketchify_rt.files import probe, whole, write


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Drops root's permission to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new", b""):
        files.atomic_write(path, data)
        assert path.read_bytes() == data
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("pread", [True, False])
def test_a_file_is_read_at_a_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pread: bool
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    if not pread:
        monkeypatch.delattr(os, "pread")
    with (tmp_path / "file").open("rb") as file:
        assert files.read_at(file.fileno(), 3, 4) == b"456"
        assert files.read_at(file.fileno(), 3, 8) == b"89"


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "ch 1" / "ä" / "-x.png"
    write(path, b"first")
    write(path, b"second")
    assert path.read_bytes() == b"second"
    assert everything(tmp_path) == ["ch 1", "ch 1/ä", "ch 1/ä/-x.png"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_results_have_the_permissions_of_any_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a.png", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == mode


def test_a_write_cut_short_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match="File too large; raise the limit") as caught:
            write(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["a.png"]


def test_until_it_is_complete_a_file_is_hidden(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    for data in (b"first", b"second"):
        with whole(path) as file:
            file.write(data)
            file.flush()
            (hidden,) = (name for name in everything(path.parent) if name != "a.png")
            assert hidden.startswith(".")
            assert path.exists() == (data == b"second")
        assert path.read_bytes() == data
        assert everything(tmp_path) == ["new", "new/a.png"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.png") as file:
        file.write(b"data")
        raise KeyboardInterrupt
    assert everything(tmp_path) == []


def test_names_too_long_and_names_as_long_as_can_be(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 251 + ".png"), b"x")
    with pytest.raises(OutputError, match="shorter name"):
        write(tmp_path / ("x" * 252 + ".png"), b"x")
    assert len(everything(tmp_path)) == 1


def test_a_file_in_the_way_of_a_folder_and_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        write(tmp_path / "file" / "b.png", b"x")
    with pytest.raises(OutputError, match="a folder stands where the file is needed"):
        write(tmp_path / "a.png", b"x")
    assert everything(tmp_path) == ["a.png", "file"]


def test_an_unwritable_folder(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with as_a_user():
        with pytest.raises(OutputError, match="Permission denied; allow writing") as caught:
            write(locked / "a.png", b"x")
        with pytest.raises(OutputError, match="locked: cannot be written: Permission denied"):
            probe(locked)
    assert caught.value.errno == errno.EACCES
    assert everything(locked) == []


def test_a_probe_makes_the_folder_and_leaves_no_trace_in_it(tmp_path: Path) -> None:
    probe(tmp_path / "new" / "out")
    assert everything(tmp_path) == ["new", "new/out"]


def test_processes_that_make_the_same_file_never_mix(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from sketchify_rt.files import write
for number in range(150):
    write(Path("a.png"), sys.argv[1].encode() * (1000 + number))
"""
    path = tmp_path / "a.png"
    write(path, b"0" * 1000)
    running = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "1234"
    ]
    seen = set()
    while any(process.poll() is None for process in running):
        data = path.read_bytes()
        assert len(data) >= 1000
        assert data == data[:1] * len(data)
        seen.add(data[:1])
    assert [process.returncode for process in running] == [0] * 4
    assert len(seen) > 1
    assert len(path.read_bytes()) == 1149
    assert everything(tmp_path) == ["a.png"]
