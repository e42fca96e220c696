"""Encoded images -> files in the output folder, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sketchify_rt.errors import OutputError
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


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, and create the folders above it.

    Readers, and whoever comes after an interruption, see the old file or the new one, never a
    part: the bytes go to a hidden file in the same folder, which is then renamed.
    Raises OutputError, with `errno` set, which names the file, what is wrong and what to do.

    There is no fsync: it takes 4 to 7 ms a page (ext4 on a virtual disk), as long as the whole
    of the classic filters, to guard against a power cut alone. What a power cut leaves behind is
    an empty file, which `Folder` does not take for a result.
    """
    # The name has a fixed length: one made from a name of 255 bytes would be too long.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            _write_new(part, data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(part, data)
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise _explain(path, error) from error
        raise


def _write_new(path: Path, data: bytes) -> None:
    # Mode 0666 less the umask, as for any file; those of the tempfile module would be 0600.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _explain(path: Path, error: OSError) -> OutputError:
    code = error.errno or 0
    remedy = _REMEDIES.get(code, "choose another output folder")
    explained = OutputError(f"{path}: cannot be written: {error.strerror}; {remedy}")
    explained.errno = error.errno
    return explained


def _nothing(_: Path) -> bool:
    return False


@dataclass(frozen=True)
class Folder:
    """The output folder.

    root: where results go; format: their ending; existing: what to do about a result that is
    there already; protected: tells of a path whether it must not be written, being an input.
    """

    root: Path
    format: Format
    existing: Existing = "refuse"
    protected: Callable[[Path], bool] = _nothing

    def open(self) -> None:
        """Create the folder and prove that files can be made in it; OutputError if not."""
        probe = self.root / f".{secrets.token_hex(8)}.part"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _write_new(probe, b"")
        except OSError as error:
            raise _explain(self.root, error) from error
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def place(self, stem: str) -> Path:
        """Path of the result called `stem`; OutputError where it is an input."""
        path = self.root / f"{stem}.{self.format}"
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
            raise _explain(path, error) from error
        if not status.st_size and stat.S_ISREG(status.st_mode):
            return False
        if self.existing == "refuse":
            raise OutputError(f"{path}: exists already; give --overwrite or --skip-existing")
        return stat.S_ISREG(status.st_mode)
