"""Writes files atomically, and reads them at a place."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from sketchify_rt import forks

T = TypeVar("T")
Seal = Callable[[os.stat_result], None]

PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""Name of a file that is being written, where it has one."""

# Errors of file systems without files that have no name, such as NFS.
_NO_UNNAMED = frozenset({errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL})

_position = forks.Lock()


def atomic_write(path: Path, data: bytes) -> None:
    """Replaces a file as `part` does. It is on the disk when this returns.

    Args:
        path: The file. Its folders are made.
        data: What it will hold.

    Raises:
        OSError: It cannot be written. The old file stays.
    """
    with part(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


@contextmanager
def part(path: Path, seal: Seal = lambda status: None) -> Iterator[BinaryIO]:
    """Opens a file to write to, which gets the name `path` at the end of the `with`, or none.

    Readers see the old file or the new one. Until the end the file has no name, so that even
    SIGKILL leaves nothing behind. On a file system without such files, and for the instant in which
    it replaces an old file, it is a hidden file in the same folder, see `PART`. What SIGKILL leaves
    of that is removed when the same file is made again.

    Args:
        path: The file. Its folders are made.
        seal: Called with the status of the file when it is complete, before it gets its name; what
            it raises undoes the file.

    Raises:
        OSError: It cannot be written. The old file stays.
    """
    number = _open_unnamed(path.parent)
    with _hidden(path, seal) if number is None else _unnamed(number, path, seal) as file:
        yield file


@contextmanager
def _unnamed(number: int, path: Path, seal: Seal) -> Iterator[BinaryIO]:
    with open(number, "wb") as file:
        yield file
        file.flush()
        seal(os.fstat(number))
        try:
            _link(number, path)
        except FileExistsError:  # there is no call that puts it in the place of another file
            _lock(number)
            _, name = _claim(path, functools.partial(_link, number))
            with _removed_else(name):
                name.replace(path)


@contextmanager
def _hidden(path: Path, seal: Seal) -> Iterator[BinaryIO]:
    number, name = _claim(path, _create)
    try:
        with _removed_else(name):
            # Closed before it gets its name, since NFS tells of a full disk no sooner; and yet
            # locked, lest another process take it for one that a killed process left.
            with open(os.dup(number), "wb") as file:  # noqa: PTH123
                yield file
                file.flush()
                seal(os.fstat(number))
            name.replace(path)
    finally:
        os.close(number)


@contextmanager
def _removed_else(name: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            name.unlink()
        raise


def _claim(path: Path, make: Callable[[Path], T]) -> tuple[T, Path]:
    """Calls `make` with a hidden name beside `path` that no other process has.

    The name depends on that of `path`: a process that makes the same file again, after another was
    killed, first removes what is left. While another process makes the same file, the name is
    random.

    Returns:
        What `make` returned, and the name.
    """
    # Of a fixed length: one made from a name of 255 bytes would be too long.
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    with contextlib.suppress(OSError):
        _clear(name := path.with_name(f".{digest}.part"))
        return make(name), name
    name = path.with_name(f".{secrets.token_hex(8)}.part")
    return make(name), name


def _clear(name: Path) -> None:
    """Removes what a killed process left. Raises OSError if another may be writing it."""
    try:
        number = _open(name, getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return
    try:
        _flock(number, wait=False)
        _check(number, name)
        name.unlink()
    finally:
        os.close(number)


def _create(name: Path) -> int:
    """Creates a file of that name, locked. Raises OSError."""
    number = _open(name, os.O_CREAT | os.O_EXCL)
    try:
        _lock(number)
        _check(number, name)
    except BaseException:
        os.close(number)
        raise
    return number


def _lock(number: int) -> None:
    """Locks a file of this process. Others hold it only for as long as `_clear` takes."""
    with contextlib.suppress(OSError):  # no locks: then none is ever removed
        _flock(number, wait=True)


def _flock(number: int, wait: bool) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOTSUP, "this system has no file locks") from error
    fcntl.flock(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check(number: int, name: Path) -> None:
    """Raises OSError if the file has lost its name since it was opened."""
    if not os.path.samestat(os.fstat(number), name.lstat()):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(name))


def _link(number: int, name: Path) -> None:
    # That of an open file is a link, followed only if a folder is given, not looked at.
    os.link(f"/proc/self/fd/{number}", name, src_dir_fd=number)


def _open_unnamed(folder: Path) -> int | None:
    """Opens a file without a name in the folder, which is made; None if there are no such files."""
    if not hasattr(os, "O_TMPFILE"):
        folder.mkdir(parents=True, exist_ok=True)
        return None
    try:
        return _open(folder, os.O_TMPFILE)
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        return _open_unnamed(folder)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        return None


def _open(path: Path, how: int) -> int:
    # Mode 0666 less the umask, as for any file; those of the tempfile module would be 0600.
    return os.open(path, os.O_RDWR | how, 0o666)


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """Reads from a place in an open file, whatever its position. For any thread.

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
    """Writes a folder's list of files to the disk, if its file system can."""
    with contextlib.suppress(OSError):  # some network file systems, and Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
