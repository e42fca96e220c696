"""A ZIP or CBZ archive -> its pages."""

from __future__ import annotations

import itertools
import stat
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from isal import isal_zlib

from sketchify_rt.batch import sources
from sketchify_rt.batch.archives.directory import Directory, Member, Page, Source
from sketchify_rt.batch.archives.names import reading_order
from sketchify_rt.errors import ContainerError, DecodeError, InputError
from sketchify_rt.inputs import File
from sketchify_rt.options import MAX_PIXELS

# A page is read into memory as a whole. This is MAX_PIXELS of 16 bits without compression.
MAX_PAGE = 2 * MAX_PIXELS
ENCRYPTED = 0x1  # flag of a member

_CHUNK = 2**20
_ANEW = "get a whole copy of the archive"


class Archive:
    """An open archive, as it was when it was opened. Thread-safe.

    path: as given; members: all, pages: the images among them, both in the order of its directory;
    comment: of the archive; encoding: of its names, see `Directory`.
    """

    def __init__(self, path: Path) -> None:
        """Look through the directory and the header of each member.

        Raises InputError for what cannot be read, is no ZIP archive, is damaged or cut short, has
        too many members, or none that is an image; where two members have one name, or share data,
        as bombs do; where the name of one leads out of the folder that it is unpacked to.
        """
        self.path = path
        try:
            self._source = Source(path)
        except (OSError, ValueError) as error:  # ValueError: no name that a file can have
            raise _unreadable(path, error) from error
        try:
            directory = Directory.of(self._source)
            self.members, self.comment = directory.members, directory.comment
            self.encoding = directory.encoding
            self.pages = [member for member in self.members if isinstance(member, Page)]
            if not self.pages:
                raise ContainerError(f"{path}: the archive has no images in it")
        except OSError as error:
            self.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self.close()
            raise

    def reading_order(self) -> list[Page]:
        """The pages sorted by name as people do, page 2 before page 10."""
        return sorted(self.pages, key=lambda page: (reading_order(page.name), page.name))

    def stem(self, page: Page) -> str:
        """Path of its result below the folder that the archive is unpacked to, without an ending.

        It never leads out of it. Twins are told apart as in folders, see `sources`. A part may be
        longer than the 255 bytes that file systems take; the system says so, of that page alone.
        """
        return self._stems[page.index]

    @cached_property
    def _stems(self) -> dict[int, str]:
        folders: dict[str, dict[str, list[Page]]] = {}  # by path, case folded and as it is
        for page in self.pages:
            below = page.name.rpartition("/")[0]
            folders.setdefault(below.casefold(), {}).setdefault(below, []).append(page)
        stems = {}
        for spellings in folders.values():
            picks = [
                sources._Pick(self.path / below, below, [_last(page.name) for page in pages])
                for below, pages in spellings.items()
            ]
            pages = itertools.chain.from_iterable(spellings.values())
            for page, job in zip(pages, sources._name(picks), strict=True):
                stems[page.index] = job.stem
        return stems

    def size(self, page: Page) -> int:
        """Bytes of memory that `read` takes, 0 where it refuses."""
        return 0 if _why_unread(page.info) else page.info.compress_size + page.info.file_size

    def read(self, page: Page) -> File:
        """The image file, named "book.cbz/page 01.jpg".

        Raises DecodeError for what is wrong with this page alone, InputError where the archive can
        no longer be read.
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
        """Its data as they are in the archive, in chunks. Raises InputError."""
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
        """Close the file, once no thread reads from it."""
        self._source.close()

    def __del__(self) -> None:
        # Where pages are taken one by one, nobody knows which is the last.
        if hasattr(self, "_source"):
            self._source.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _why_unread(info: ZipInfo) -> str:
    if info.flag_bits & ENCRYPTED:
        return "encrypted; repack the archive without a password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link; repack the archive with the file that it points to"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        # Others are hardly met with, and 4 KB of bzip2 can become gigabytes in one piece.
        return f"compressed by method {info.compress_type}; repack the archive with Deflate"
    if (size := max(info.file_size, info.compress_size)) > MAX_PAGE:
        return (
            f"takes {size / 2**20:.0f} MiB, and a page of an archive may take "
            f"{MAX_PAGE / 2**20:.0f}; unpack the archive and convert the folder"
        )
    return ""


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")
