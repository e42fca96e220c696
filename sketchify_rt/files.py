"""Writes files atomically, with errors for users, and reads them at a place."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sketchify_rt import forks
from sketchify_rt.errors import OutputError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REMEDIES = {
    errno.ENOSPC: "make room there or choose another output folder",
    errno.EDQUOT: "make room there or choose another output folder",
    errno.EACCES: "allow writing there or choose another output folder",
    errno.EPERM: "allow writing there or choose another output folder",
    errno.EROFS: "choose another output folder",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.ENAMETOOLONG: "give the input a shorter name",
    errno.EEXIST: "a file stands where a folder is needed; move it away",
    errno.ENOTDIR: "a file stands where a folder is needed; move it away",
    errno.EISDIR: "a folder stands where the file is needed; move it away",
}

_position = forks.Lock()


@contextmanager
def part(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file, which replaces `path` at the end of the `with`.

    Readers see the old file or the new one. Until the end it is a hidden file in the same folder,
    which only SIGKILL leaves behind.

    Args:
        path: The file. Its folders are created.

    Raises:
        OSError: It cannot be written. The old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a fixed length: one made from a name of 255 bytes would be too long.
    hidden = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # Closed before it gets its name, because NFS reports a full disk only then.
        with hidden.open("xb") as file:
            yield file
        hidden.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Replaces a file as `part` does. It is on the disk when this returns.

    Args:
        path: The file. Its folders are created.
        data: The new content.

    Raises:
        OSError: It cannot be written. The old file stays.
    """
    with part(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(OSError):  # some network file systems, and Windows
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Does the same as `part`, with errors for users.

    Raises:
        OutputError: It cannot be written.
    """
    with explaining(path), part(path) as file:
        yield file


def write(path: Path, data: bytes) -> None:
    """Writes a file as `whole` does."""
    with whole(path) as file:
        file.write(data)


def probe(folder: Path) -> None:
    """Creates a folder if it is missing. Raises OutputError if no file can be written there."""
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turns each OSError into the OutputError of `explained`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise explained(path, error) from error


def explained(path: Path, error: OSError, what: str = "cannot be written") -> OutputError:
    """Returns an error that names the file, the problem and what to do.

    Args:
        path: The file.
        error: What the system says.
        what: What failed.
    """
    remedy = _REMEDIES.get(error.errno or 0, "choose another output folder")
    result = OutputError(f"{path}: {what}: {error.strerror or error}; {remedy}")
    result.errno = error.errno
    return result


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """Reads from a place in an open file, whatever its position. Thread-safe.

    Args:
        descriptor: The file.
        size: Most bytes to read.
        start: Offset of the first one.

    Raises:
        OSError: It cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, start)
    with _position:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, size)
