"""Write files atomically."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from sketchify_rt import forks

NEW = ".new-"
"""Begins the name of a file that `atomic_write` is writing."""

_position = forks.Lock()


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file by one rename; it is on the disk when this returns.

    Readers see the old file or the new one. If the process is killed meanwhile, a file whose name
    begins with `NEW` may stay beside it.

    Args:
        path: The file; its folder must exist.
        data: What it will hold.

    Raises:
        OSError: It cannot be written. The old file stays.
    """
    new = path.with_name(f"{NEW}{uuid.uuid4().hex}")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """Read from a place in an open file, without regard to its position; for any thread.

    Args:
        descriptor: Of the file.
        size: Bytes to read, at most.
        start: Offset of the first one.

    Raises:
        OSError: It cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, start)
    with _position:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, size)


def sync(folder: Path) -> None:
    """Put a folder's list of files on the disk, if its file system can."""
    with suppress(OSError):  # some network file systems, and Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
