"""One picture of a job: a file, or a page of an archive or of a PDF file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isal import isal_zlib

from sketchify_rt.batch import hints
from sketchify_rt.batch.budget import DRAWN, per_pixel
from sketchify_rt.errors import InputError
from sketchify_rt.options import Encoding

if TYPE_CHECKING:
    from sketchify_rt.batch.archives import Page
    from sketchify_rt.batch.books import OpenBook
    from sketchify_rt.batch.resume import Decision, Seen, Wait
    from sketchify_rt.batch.staging import Staged
    from sketchify_rt.inputs import Loaded

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Stat:
    """A file as it is now.

    Attributes:
        size: Bytes.
        modified: Time of the last change in nanoseconds.
    """

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stat:
        """Looks at a file.

        Only regular files are accepted. So opening them afterwards does not wait for the other end
        of a named pipe, and reading them ends.

        Raises:
            InputError: There is no such file, or it is no regular file.
        """
        try:
            status = path.stat()
        except (OSError, ValueError) as error:  # ValueError: not a possible name
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read ({why})") from error
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is a folder, a named pipe or a device; give a file")
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class Item:
    """One picture and its result.

    Attributes:
        index: Number of its input among the inputs.
        path: The file.
        output: Path of the result below the output folder.
        member: Name of the page in the file, or "".
        stat: The file as it was before it was opened; None until somebody looks.
        content: Checksum that tells the file from others of the same size; None if not yet read.
        load: Reads the page. None for a file that is a picture.
        weigh: Returns the bytes of memory that `load` takes.
        drawn: Whether `load` gives pixels, which take DRAWN bytes each.
        hint: Picture that is its own hint.
        folder: Whether the result is a folder of pages.
        book: The archive of results, with the page of its source, if it has no file of its own.
        seen: The item and its result as the journal's row is compared with; None if nobody looked.
        decision: What is decided already; None to decide by the journal.
        replace: Whether the result may replace a file.
        staged: Its file in the staging folder, while it is in work.
        suspect: Whether it was in work when two runs crashed.
        animated: Whether it has more frames or pages, which are left out.
        flaw: Why not all pages of an archive are converted, and whether they would fail again.
    """

    index: int
    path: Path
    output: str
    member: str = ""
    stat: Stat | None = None
    content: int | None = None
    load: Callable[[], Loaded] | None = None
    weigh: Callable[[], int] | None = None
    drawn: bool = False
    hint: Path | None = None
    folder: bool = False
    book: tuple[OpenBook, Page] | None = None
    seen: Seen | None = None
    decision: Decision | Wait | None = None
    replace: bool = False
    staged: Staged | None = None
    suspect: bool = False
    animated: bool = False
    flaw: tuple[str, bool] | None = None

    @property
    def source(self) -> Path:
        """What a user calls it."""
        return self.path / self.member if self.member else self.path

    @property
    def key(self) -> bytes:
        """Its key in the journal."""
        return os.fsencode(self.output)

    def look(self) -> Stat:
        """Returns the file as it was when this was first called. Raises InputError."""
        if self.stat is None:
            self.stat = Stat.of(self.path)
        return self.stat

    def checksum(self) -> int | None:
        """Returns `content`, for which it reads the file; None if it cannot be read."""
        if self.content is None:
            self.content = checksum(self.path)
        return self.content

    def size(self) -> int:
        """Returns the bytes of memory that `read` takes. Raises InputError."""
        return self.weigh() if self.weigh is not None else self.look().size

    def need(self, encoding: Encoding, colours: bool = False) -> int | None:
        """Returns the bytes of memory for all of its conversion; None if only reading it tells."""
        if not self.drawn:
            return None
        return self.size() // DRAWN * per_pixel("luma", encoding, colours)

    def read(self) -> Loaded:
        """Reads the file, or draws the page, with its hint. Raises InputError and DecodeError."""
        from sketchify_rt import inputs  # with NumPy, which --help does without

        image = self.load() if self.load is not None else inputs.load(self.path)
        if isinstance(image, inputs.File):
            self.animated = image.header.animated
            if self.content is None:
                self.content = isal_zlib.crc32(image.data)
        return hints.give(image, self.hint) if self.hint else image


def checksum(path: Path) -> int | None:
    """Returns the CRC-32 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            total = 0
            while chunk := file.read(_CHUNK):
                total = isal_zlib.crc32(chunk, total)
            return total
    except OSError:
        return None


def checksum_of_ends(path: Path) -> int | None:
    """Returns the CRC-32 of the first and the last MiB of a file; None if it cannot be read.

    The directory of an archive is at its end, with a checksum of each page; so is the table of
    objects of a PDF file.
    """
    try:
        with path.open("rb") as file:
            total = isal_zlib.crc32(file.read(_CHUNK))
            file.seek(max(_CHUNK, file.seek(0, os.SEEK_END) - _CHUNK))
            return isal_zlib.crc32(file.read(), total)
    except OSError:
        return None
