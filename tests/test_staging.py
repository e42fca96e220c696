from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sketchify_rt import files
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.batch.staging import Staging
from sketchify_rt.errors import OutputError


def visible(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and HIDDEN not in path.parts
    }


def make(staging: Staging, root: Path, name: str, data: bytes, replace: bool = False) -> None:
    with files.explaining(root / name):
        staged = staging.begin(name.encode())
        try:
            staged.file.write(data)
            assert staged.complete() == len(data)
            staged.publish(root / name, replace)
        finally:
            staged.end()


@pytest.fixture(params=["links", "no links"])
def staging(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Staging:
    if request.param == "no links":  # as on Android, exFAT and some network file systems

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    made = Staging(tmp_path, exclusive=True)
    assert made.open() == []
    assert list(made.folder.iterdir()) == []  # nothing is left of the probe
    return made


def test_a_result_gets_its_name_when_it_is_complete(tmp_path: Path, staging: Staging) -> None:
    make(staging, tmp_path, "sub/folder/a.png", b"sketch")
    assert visible(tmp_path) == {"sub/folder/a.png": b"sketch"}
    assert list(staging.folder.iterdir()) == []
    staging.close()
    assert not (tmp_path / HIDDEN).exists()


def test_only_what_may_be_replaced_is_replaced(tmp_path: Path, staging: Staging) -> None:
    make(staging, tmp_path, "a.png", b"first")
    with pytest.raises(OutputError, match=r"a\.png: was created by another program meanwhile"):
        make(staging, tmp_path, "a.png", b"second")
    assert visible(tmp_path) == {"a.png": b"first"}
    make(staging, tmp_path, "a.png", b"third", replace=True)
    assert visible(tmp_path) == {"a.png": b"third"}
    (tmp_path / "a.png").write_bytes(b"")  # what a power cut leaves
    make(staging, tmp_path, "a.png", b"fourth")
    assert visible(tmp_path) == {"a.png": b"fourth"}
    assert list(staging.folder.iterdir()) == []


def test_what_is_in_the_way_is_named(tmp_path: Path, staging: Staging) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        make(staging, tmp_path, "file/b.png", b"x")
    with pytest.raises(OutputError, match="a folder stands where the file is needed"):
        make(staging, tmp_path, "a.png", b"x")
    with pytest.raises(OutputError, match="give the input a shorter name"):
        make(staging, tmp_path, "x" * 252 + ".png", b"x")
    assert visible(tmp_path) == {"file": b""}


def test_a_folder_on_another_file_system_is_written(
    tmp_path: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, replace = os.link, Path.replace

    def check(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

    def link_within(source: Path, target: Path) -> None:
        check(source, target)
        link(source, target)

    def replace_within(self: Path, target: Path) -> Path:
        check(self, target)
        return replace(self, target)

    if staging._links:
        monkeypatch.setattr(os, "link", link_within)
    monkeypatch.setattr(Path, "replace", replace_within)
    for data, may in (b"sketch", False), (b"newer", True):
        make(staging, tmp_path, "a.png", data, may)
        assert visible(tmp_path) == {"a.png": data}
    with pytest.raises(OutputError, match="was created by another program"):
        make(staging, tmp_path, "a.png", b"third")
    assert visible(tmp_path) == {"a.png": b"newer"}
    assert [path.name for path in tmp_path.iterdir()] in (["a.png", HIDDEN], [HIDDEN, "a.png"])


def test_what_a_killed_run_left_is_removed_and_told(tmp_path: Path, staging: Staging) -> None:
    left = [staging.begin(name) for name in (b"a.png", b"b.png")]
    again = Staging(tmp_path, exclusive=True)
    assert again.open() == sorted(staged.name for staged in left)
    assert list(again.folder.iterdir()) == []
    once_more = again.begin(b"a.png")
    assert once_more.name == left[0].name
    for staged in (*left, once_more):
        staged.end()


def test_runs_without_a_journal_leave_the_files_of_others_alone(
    tmp_path: Path, staging: Staging
) -> None:
    ours = staging.begin(b"a.png")
    other = Staging(tmp_path, exclusive=False)
    assert other.open() == []
    other.begin(b"a.png").end()
    other.close()
    assert [path.name for path in staging.folder.iterdir()] == [ours.name]
    ours.end()


def test_a_folder_that_cannot_be_written_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        Staging(tmp_path / "file", exclusive=True).open()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; make room there"):
        Staging(tmp_path, exclusive=True).open()
    assert not any((tmp_path / HIDDEN / "staging").iterdir())
