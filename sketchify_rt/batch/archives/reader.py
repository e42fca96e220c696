"""Reads the pages of a ZIP or CBZ archive."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from isal import isal_zlib

from sketchify_rt.batch.archives.directory import Member, Page, Source, read_directory
from sketchify_rt.batch.result_names import Folders, Pick, fold, named
from sketchify_rt.errors import ContainerError, DecodeError, InputError
from sketchify_rt.inputs import File
from sketchify_rt.options import FORMATS, MAX_PIXELS

# Bytes. A page is read into memory as a whole. This is MAX_PIXELS of 16 bits without compression.
MAX_PAGE = 2 * MAX_PIXELS
ENCRYPTED = 0x1  # flag of a member

_CHUNK = 2**20
_ANEW = "get a whole copy of the archive"


class Archive:
    """An open archive, as it was when it was opened. Thread-safe.

    Attributes:
        path: The file, as it was given.
        members: All members, in the order of its directory.
        pages: The pictures among them.
        comment: Comment of the archive.
    """

    def __init__(self, path: Path) -> None:
        """Reads the directory and the header of each member.

        Args:
            path: The file. Its content counts, not its ending.

        Raises:
            InputError: It cannot be read; it is no ZIP archive, or damaged or truncated; it has too
                many members, or none that is a picture; two members have one name or share data, as
                in bombs; the name of one leads out of the folder that it is unpacked to.
        """
        self.path = path
        try:
            self._source = Source(path)
            self.members, self.comment = read_directory(self._source)
            self.pages = [member for member in self.members if isinstance(member, Page)]
            if not self.pages:
                raise ContainerError(f"{path}: the archive has no images in it")
        except InputError:
            self.close()
            raise
        except (OSError, ValueError) as error:  # ValueError: no file can have this name
            self.close()
            raise _unreadable(path, error) from error

    def stem(self, page: Page) -> str:
        """Returns the path of a result below the folder that the archive is unpacked to.

        It has no ending, and never leads out of the folder. No two results collide, see
        `result_names`. A part may be longer than the 255 bytes that file systems take. Then the
        result of this page cannot be written.
        """
        return self._stems[page.index]

    @cached_property
    def _stems(self) -> dict[int, str]:
        folders: dict[str, dict[str, list[Page]]] = {}  # by path, folded and as it is
        for page in self.pages:
            below = page.name.rpartition("/")[0]
            folders.setdefault(fold(below), {}).setdefault(below, []).append(page)
        parents, stems = Folders(folders), {}
        for spellings in folders.values():
            picks = [
                Pick(self.path / below, below, [page.name.rpartition("/")[2] for page in pages])
                for below, pages in spellings.items()
            ]
            pages = [page for pages in spellings.values() for page in pages]
            for page, job in zip(pages, named(picks, parents, FORMATS), strict=True):
                stems[page.index] = job.stem
        return stems

    def size(self, page: Page) -> int:
        """Returns the bytes of memory that `read` takes, 0 if it refuses."""
        return 0 if _why_unread(page.info) else page.info.compress_size + page.info.file_size

    def read(self, page: Page) -> File:
        """Returns the picture file, named "book.cbz/page 01.jpg".

        Raises:
            DecodeError: Something is wrong with this page alone.
            InputError: The archive can no longer be read.
        """
        name, info = f"{self.path}/{page.name}", page.info
        if why := _why_unread(info):
            raise DecodeError(name, why)
        data = b"".join(self.raw(page))
        if info.compress_type == ZIP_DEFLATED:
            try:
                # One byte more than there may be, and so no more memory.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
            except zlib.error as error:
                raise DecodeError(name, f"damaged in the archive: {error}; {_ANEW}") from error
        if len(data) != info.file_size or isal_zlib.crc32(data) != info.CRC:
            raise DecodeError(name, f"damaged in the archive: its checksum is wrong; {_ANEW}")
        return File(name, data)

    def raw(self, member: Member) -> Iterator[bytes]:
        """Yields the data of a member as they are in the archive, in chunks. Raises InputError."""
        end = member.start + member.info.compress_size
        for start in range(member.start, end, _CHUNK):
            try:
                chunk = self._source.at(start, min(_CHUNK, end - start))
            except InputError:
                raise
            except (OSError, ValueError) as error:  # ValueError: it is closed
                raise _unreadable(self.path, error) from error
            yield chunk

    def close(self) -> None:
        """Closes the file. No thread may still read from it."""
        # If pages are taken one by one, nobody knows which is the last: then __del__ calls this.
        if hasattr(self, "_source"):
            self._source.close()

    __del__ = close

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _why_unread(info: ZipInfo) -> str:
    """Returns why a page cannot be read, "" if it can."""
    if info.flag_bits & ENCRYPTED:
        return "encrypted; repack the archive without a password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link; repack the archive with the file that it points to"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        # Others are rare, and 4 KB of bzip2 can become gigabytes in one piece.
        return f"compressed by method {info.compress_type}; repack the archive with Deflate"
    if (size := max(info.file_size, info.compress_size)) > MAX_PAGE:
        return (
            f"takes {size / 2**20:.0f} MiB, and a page of an archive may take "
            f"{MAX_PAGE / 2**20:.0f}; unpack the archive and convert the folder"
        )
    return ""


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")
