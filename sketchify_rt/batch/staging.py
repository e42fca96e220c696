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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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

    def begin(self, key: bytes) -> str:
        """Creates the file of an item.

        Args:
            key: Path of its result below the output folder.

        Returns:
            The name of the file.

        Raises:
            OutputError: It cannot be created.
        """
        name = hashlib.blake2b(key, digest_size=8).hexdigest()
        with explaining(self._root / os.fsdecode(key)):
            os.close(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        return name

    def path(self, name: str) -> Path:
        """Returns where the file of an item lies, to be written."""
        return self.folder / name

    def publish(self, name: str, path: Path, replace: bool, before: Callable[[], object]) -> None:
        """Gives a complete file its name in the output folder.

        Args:
            name: The file.
            path: Its new name. Its folders are created.
            replace: Whether it may replace a file. An empty file is always replaced.
            before: Called just before.

        Raises:
            OutputError: It cannot get the name, or a file that may not be replaced has it.
        """
        staged = self.folder / name
        with explaining(path):
            before()
            try:
                self._move(staged, path, replace)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._move(staged, path, replace)

    def _move(self, staged: Path, path: Path, replace: bool) -> None:
        try:
            if replace:
                staged.replace(path)
            elif self._links:
                os.link(staged, path)
            elif path.exists():
                raise FileExistsError
            else:
                staged.replace(path)
        except FileExistsError as error:
            if path.is_file() and path.stat().st_size:
                raise OutputError(
                    f"{path}: was created by another program meanwhile, and is kept"
                ) from error
            staged.replace(path)  # fails for a folder
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A folder of results on another file system.
            near = path.with_name(f".{staged.name}.part")
            shutil.copyfile(staged, near)
            near.replace(path)

    def end(self, name: str) -> None:
        """Removes what is left of an item: nothing, if its only name is that of the result."""
        with suppress(OSError):
            (self.folder / name).unlink()

    def close(self) -> None:
        """Removes the folder, and its parent if that is empty."""
        self.is_open = False
        with suppress(OSError):
            shutil.rmtree(self.folder)
            self.folder.parent.rmdir()


def _has_links(file: Path, link: Path) -> bool:
    """Whether a file can have two names here. Android and some network file systems refuse it."""
    try:
        os.link(file, link)
    except (OSError, AttributeError):
        return False
    link.unlink()
    return True
