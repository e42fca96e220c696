"""Writes encoded images to the output folder, atomically."""

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

    There is no fsync, which would take 4 to 7 ms per page (ext4 on a virtual disk), as long as a
    classic filter. After a power cut a file may be empty; `Folder` does not count it as a result.
    """
    with _explaining(path), part(path, seal) as file:
        yield file


def write(path: Path, data: bytes, seal: Seal = lambda status: None) -> None:
    """Writes `data` to `path` as `whole` does."""
    with whole(path, seal) as file:
        file.write(data)


def explained(path: Path, error: OSError, what: str = "cannot be written") -> OutputError:
    """Makes an OutputError with the file, the problem and what to do."""
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
    """Raised to discard a file."""


def _unprotected(_: Path) -> bool:
    return False


@dataclass(frozen=True)
class Folder:
    """The output folder.

    Attributes:
        root: The folder.
        format: Ending of images.
        existing: What to do if a result exists.
        protected: Tells whether a path is an input, and must not be written.
    """

    root: Path
    format: Format
    existing: Existing = "refuse"
    protected: Callable[[Path], bool] = _unprotected

    def open(self) -> None:
        """Creates the folder, and checks that files can be written. Raises OutputError."""
        with _explaining(self.root), suppress(_GivenUpError), part(self.root / "probe"):
            raise _GivenUpError

    def place(self, name: str) -> Path:
        """Returns the path of the result of that name. Raises OutputError if it is an input."""
        path = self.root / name
        if self.protected(path):
            raise OutputError(
                f"{path}: would overwrite an input file. Choose another output folder or format"
            )
        return path

    def skips(self, path: Path) -> bool:
        """Tells whether the result exists and is kept. Raises OutputError if it may not be."""
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
