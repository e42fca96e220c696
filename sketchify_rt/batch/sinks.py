"""Encoded images -> files in the output folder, whole or not at all."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from sketchify_rt.errors import OutputError
from sketchify_rt.files import Seal, part
from sketchify_rt.options import Format

Existing = Literal["refuse", "overwrite", "skip"]

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


@contextmanager
def whole(path: Path, seal: Seal = lambda status: None) -> Iterator[BinaryIO]:
    """`files.part`, with errors for users.

    Raises OutputError, with `errno` set, which names the file, what is wrong and what to do.

    There is no fsync: it takes 4 to 7 ms a page (ext4 on a virtual disk), as long as the whole
    of the classic filters, to guard against a power cut alone. What a power cut leaves behind is
    an empty file, which `Folder` does not take for a result.
    """
    with _explaining(path), part(path, seal) as file:
        yield file


def write(path: Path, data: bytes, seal: Seal = lambda status: None) -> None:
    """Write `data` to `path` as `whole` does."""
    with whole(path, seal) as file:
        file.write(data)


def explained(path: Path, error: OSError, what: str = "cannot be written") -> OutputError:
    """The error with the file, what is wrong and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another output folder")
    result = OutputError(f"{path}: {what}: {error.strerror}; {remedy}")
    result.errno = error.errno
    return result


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise explained(path, error) from error


class _GivenUpError(Exception):
    """So that a file does not get its name."""


def _unprotected(_: Path) -> bool:
    return False


@dataclass(frozen=True)
class Folder:
    """The output folder.

    root: where results go; format: ending of images; existing: what to do about a result that is
    there already; protected: tells of a path whether it must not be written, being an input.
    """

    root: Path
    format: Format
    existing: Existing = "refuse"
    protected: Callable[[Path], bool] = _unprotected

    def open(self) -> None:
        """Create the folder and prove that files can be made in it; OutputError if not."""
        with _explaining(self.root), suppress(_GivenUpError), part(self.root / "probe"):
            raise _GivenUpError

    def place(self, name: str) -> Path:
        """Path of the result of that name; OutputError where it is an input."""
        path = self.root / name
        if self.protected(path):
            raise OutputError(
                f"{path}: is, or would next time be, among the inputs; "
                "choose another output folder or format"
            )
        return path

    def skips(self, path: Path) -> bool:
        """Whether the result is there and stays; OutputError where it may not be replaced."""
        if self.existing == "overwrite":
            return False
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise explained(path, error) from error
        if not status.st_size and stat.S_ISREG(status.st_mode):
            return False
        if self.existing == "refuse":
            raise OutputError(f"{path}: exists already; give --overwrite or --skip-existing")
        return stat.S_ISREG(status.st_mode)
