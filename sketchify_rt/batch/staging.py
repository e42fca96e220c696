"""Files in the making: they lie in a hidden folder until they are complete.

A file is created when its item is begun. So what a killed run leaves there tells which items were
in work.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.errors import OutputError
from sketchify_rt.files import explaining

_PROBE = "probe"


class Staging:
    """The folder ``OUT/.sketchify-rt/staging``. Thread-safe.

    Attributes:
        folder: The folder.
        is_open: Whether it is there.
    """

    def __init__(self, root: Path, exclusive: bool) -> None:
        """Creates nothing yet.

        Args:
            root: The output folder.
            exclusive: Whether no other process can use it. If one can, the folder gets a random
                name, and what other processes left is not removed.
        """
        self._root = root
        name = "staging" if exclusive else f"staging-{secrets.token_hex(4)}"
        self.folder = root / HIDDEN / name
        self._links = True
        self.is_open = False

    def open(self) -> list[str]:
        """Creates the folder, and tries all steps that a result takes.

        Returns:
            Names of the items that were in work when an earlier run was killed.

        Raises:
            OutputError: Files cannot be written here, or cannot get their names.
        """
        with explaining(self._root):
            self.folder.mkdir(parents=True, exist_ok=True)
            left = sorted(path.name for path in self.folder.iterdir())
            for name in left:
                (self.folder / name).unlink()
            self._probe()
        self.is_open = True
        return [name for name in left if name != _PROBE]

    def _probe(self) -> None:
        first, second = self.folder / _PROBE, self._root / HIDDEN / f".{secrets.token_hex(8)}"
        try:
            with first.open("xb") as file:
                file.write(b"probe")
                file.flush()
                os.fsync(file.fileno())
            self._links = _has_links(first, second)
            first.replace(second)
        finally:
            for path in first, second:
                with suppress(OSError):
                    path.unlink()

    def begin(self, key: bytes) -> Staged:
        """Creates the file of an item.

        Args:
            key: Tells the item from all others in work.

        Raises:
            OSError: It cannot be created.
        """
        name = hashlib.blake2b(key, digest_size=8).hexdigest()
        return Staged(self.folder / name, self._links)

    def close(self) -> None:
        """Removes the folder, and its parent if that is empty."""
        if self.is_open:  # else it may be that of another run
            self.is_open = False
            with suppress(OSError):
                shutil.rmtree(self.folder)
                self.folder.parent.rmdir()


class Staged:
    """One file in the making.

    Attributes:
        name: Its name.
        file: To write to.
    """

    def __init__(self, path: Path, links: bool) -> None:
        """Creates the file. Raises OSError.

        Args:
            path: The file.
            links: Whether it can have two names.
        """
        self._path, self._links, self.name = path, links, path.name
        self.file: BinaryIO = path.open("w+b")

    def complete(self) -> int:
        """Closes the file. Returns its number of bytes. Raises OSError."""
        size = self.file.seek(0, os.SEEK_END)
        self.file.close()  # NFS reports a full disk only here
        return size

    def publish(self, path: Path, replace: bool) -> None:
        """Gives the complete file its name in the output folder.

        Args:
            path: Its new name. Its folders are created.
            replace: Whether it may replace a file. An empty file is always replaced.

        Raises:
            OSError: It cannot get the name.
            OutputError: A file that may not be replaced has it.
        """
        try:
            self._move(path, replace)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._move(path, replace)

    def _move(self, path: Path, replace: bool) -> None:
        try:
            if replace:
                self._path.replace(path)
            elif self._links:
                os.link(self._path, path)  # never replaces a file
            elif path.exists():
                raise FileExistsError
            else:
                self._path.replace(path)
        except FileExistsError as error:
            if path.is_file() and path.stat().st_size:
                raise OutputError(
                    f"{path}: was created by another program meanwhile, and is kept"
                ) from error
            self._path.replace(path)  # fails for a folder
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A folder of results on another file system.
            near = path.with_name(f".{self.name}.part")
            shutil.copyfile(self._path, near)
            self._path.unlink()
            self._path = near
            self._move(path, replace)

    def end(self) -> None:
        """Removes what is left of the file: nothing, if its only name is that of the result."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._path.unlink()


def _has_links(file: Path, link: Path) -> bool:
    """Whether a file can have two names here. Android and some network file systems refuse it."""
    try:
        os.link(file, link)
    except (OSError, AttributeError):
        return False
    link.unlink()
    return True
