from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sketchify_rt import files
from sketchify_rt.batch.sinks import Folder, whole, write
from sketchify_rt.errors import OutputError


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Drop root's leave to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


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


# As on file systems that know no files without a name.
ALL_NAMED = """
import errno, os
from sketchify_rt import files
opened = files._open
def refuse(path, how):
    if how == os.O_TMPFILE and path.exists():
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")
    return opened(path, how)
files._open = refuse
"""


@pytest.fixture
def all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_open", files._open)  # to be put back
    exec(ALL_NAMED, {})


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def unnamed(request: pytest.FixtureRequest) -> bool:
    if not request.param:
        request.getfixturevalue("all_named")
    return bool(request.param)


def test_until_it_is_whole_a_file_has_no_name(tmp_path: Path, unnamed: bool) -> None:
    path = tmp_path / "new" / "a.png"
    for data in (b"first", b"second"):
        sealed: list[os.stat_result] = []
        with whole(path, sealed.append) as file:
            file.write(data)
            file.flush()
            hidden = [name for name in everything(path.parent) if name != "a.png"]
            assert hidden == [] if unnamed else hidden[0].startswith(".")
            assert path.exists() == (data == b"second")
        assert path.read_bytes() == data
        assert os.path.samestat(sealed[0], path.stat())
        assert everything(tmp_path) == ["new", "new/a.png"]


def test_a_full_disk_is_named_with_a_remedy(tmp_path: Path, unnamed: bool) -> None:
    def fill(status: os.stat_result) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"a\.png: cannot be written: No space .*make room") as e:
        write(tmp_path / "a.png", b"data", fill)
    assert e.value.errno == errno.ENOSPC
    assert everything(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, unnamed: bool) -> None:
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.png") as file:
        file.write(b"data")
        raise KeyboardInterrupt
    assert everything(tmp_path) == []


def test_names_too_long_and_names_as_long_as_can_be(tmp_path: Path, unnamed: bool) -> None:
    write(tmp_path / ("x" * 251 + ".png"), b"x")
    with pytest.raises(OutputError, match="shorter name"):
        write(tmp_path / ("x" * 252 + ".png"), b"x")
    assert len(everything(tmp_path)) == 1


def test_a_file_in_the_way_of_a_folder_and_a_folder_in_the_way_of_a_file(
    tmp_path: Path, unnamed: bool
) -> None:
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
            Folder(locked, "png").open()
    assert caught.value.errno == errno.EACCES
    assert everything(locked) == []


def test_opening_makes_the_folder_and_leaves_no_trace_in_it(tmp_path: Path) -> None:
    Folder(tmp_path / "new" / "out", "png").open()
    assert everything(tmp_path) == ["new", "new/out"]


def test_opening_leaves_no_trace_when_interrupted(
    tmp_path: Path, all_named: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(number: int) -> None:
        assert len(everything(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "dup", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Folder(tmp_path, "png").open()
    assert everything(tmp_path) == []


def killed(code: str, folder: Path) -> None:
    """Run Python code that tells when it is to be killed."""
    code = f"import time; from pathlib import Path{ALL_NAMED}{code}"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.kill()


def test_what_sigkill_leaves_goes_when_the_file_is_made_again(
    tmp_path: Path, all_named: None
) -> None:
    half = """
from sketchify_rt.batch.sinks import whole
with whole(Path("a.png")) as file:
    file.write(b"half of a very long file")
    file.flush()
    print("now", flush=True)
    time.sleep(60)
"""
    for _ in range(2):
        killed(half, tmp_path)
        assert len(everything(tmp_path)) == 1
        assert everything(tmp_path)[0].endswith(".part")
    write(tmp_path / "b.png", b"other")
    assert len(everything(tmp_path)) == 2  # it is not of that file
    write(tmp_path / "a.png", b"whole")
    assert everything(tmp_path) == ["a.png", "b.png"]
    assert (tmp_path / "a.png").read_bytes() == b"whole"


def test_what_sigkill_leaves_of_a_replacement_goes_as_well(tmp_path: Path) -> None:
    write(tmp_path / "a.png", b"old")
    replacement = """
from sketchify_rt.batch.sinks import write
files._open = opened
def stop(*_):
    print("now", flush=True)
    time.sleep(60)
Path.replace = stop
write(Path("a.png"), b"new")
"""
    killed(replacement, tmp_path)
    assert len(everything(tmp_path)) == 2
    write(tmp_path / "a.png", b"newest")
    assert everything(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"newest"


def test_a_part_that_another_is_at_is_left_alone(tmp_path: Path, unnamed: bool) -> None:
    path = tmp_path / "a.png"
    with whole(path) as first:
        first.write(b"first")
        with whole(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert everything(tmp_path) == ["a.png"]


def test_processes_that_make_the_same_file_never_mix(tmp_path: Path, unnamed: bool) -> None:
    code = f"""
import sys
from pathlib import Path
{"" if unnamed else ALL_NAMED}
from sketchify_rt.batch.sinks import write
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


def test_a_part_that_another_began_meanwhile_is_left_alone(
    tmp_path: Path, all_named: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with whole(tmp_path / "a.png"):
        (name,) = tmp_path.iterdir()
    name.write_bytes(b"left by a killed process")
    lock = fcntl.flock

    def late(number: int, how: int) -> None:
        if not (tmp_path / "taken").exists():
            name.rename(tmp_path / "taken")
            name.write_bytes(b"of another process")
        lock(number, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write(tmp_path / "a.png", b"x")
    assert (tmp_path / "a.png").read_bytes() == b"x"
    assert name.read_bytes() == b"of another process"


def test_where_there_are_no_locks_no_part_is_taken_for_one_that_was_left(
    tmp_path: Path, all_named: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    test_a_part_that_another_is_at_is_left_alone(tmp_path, unnamed=False)


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path, all_named: None) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    with whole(tmp_path / "a.png"):
        (name,) = {*everything(tmp_path)} - {"mine"}
    (tmp_path / name).symlink_to("mine")
    write(tmp_path / "a.png", b"x")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "a.png").read_bytes() == b"x"


def test_what_exists_is_refused_skipped_or_replaced(tmp_path: Path) -> None:
    path = Folder(tmp_path, "webp").place("sub/a.b.webp")
    assert path == tmp_path / "sub" / "a.b.webp"
    assert not Folder(tmp_path, "webp", "skip").skips(path)
    write(path, b"")  # what a power cut leaves
    assert not Folder(tmp_path, "webp", "skip").skips(path)
    assert not Folder(tmp_path, "webp", "refuse").skips(path)
    write(path, b"x")
    assert Folder(tmp_path, "webp", "skip").skips(path)
    assert not Folder(tmp_path, "webp", "overwrite").skips(path)
    with pytest.raises(OutputError, match=r"a\.b\.webp: exists already; give --overwrite or"):
        Folder(tmp_path, "webp").skips(path)


def test_a_result_that_would_be_an_input_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "png", "overwrite", protected=lambda path: path.name == "a.png")
    assert folder.place("b.png") == tmp_path / "b.png"
    with pytest.raises(OutputError, match="would overwrite an input file"):
        folder.place("a.png")
