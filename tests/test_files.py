from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sketchify_rt import files


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
