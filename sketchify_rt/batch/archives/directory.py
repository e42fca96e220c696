"""The directory of an archive, checked so that no member can harm whoever reads or unpacks it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from sketchify_rt import files
from sketchify_rt.batch import sources
from sketchify_rt.batch.archives.names import clean
from sketchify_rt.errors import ContainerError, InputError

# zipfile makes of each member an object of some 540 bytes, in 8 µs: at most a quarter of a million
# of them, 140 MB and 2 s.
MAX_DIRECTORY = 16 * 2**20

UTF_8 = 0x800  # flag of a member: its name is
_HEADER = struct.Struct("<4s22x2H")  # before a member's data: signature, lengths of name and extra
_SIGNATURE = b"PK\3\4"
_OTHERS = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """Something in an archive: a folder, if its name ends in "/", or a file.

    index: its place in the directory; name: its path, "/" between the parts, none of which is "..";
    info: what zipfile knows; start: where its data begin.
    """

    index: int
    name: str
    info: ZipInfo
    start: int


class Page(Member):
    """A member that is an image, told by its ending."""

    __slots__ = ()


class Source(io.FileIO):
    """An archive file, of which zipfile reads no more at once than a directory may have."""

    def read(self, size: int | None = -1, /) -> Any:
        """As `io.FileIO` does; raises ContainerError for more than that."""
        if size is not None and size > MAX_DIRECTORY:
            raise ContainerError(
                f"{self.name}: has a directory of {size / 2**20:.0f} MiB, and at most "
                f"{MAX_DIRECTORY / 2**20:.0f} are read, enough for 100,000 pages; "
                "unpack it and convert the folder"
            )
        return super().read(size)

    def at(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, for any thread. Raises InputError where there are fewer."""
        data = files.read_at(self.fileno(), size, start)
        if len(data) < size:
            raise InputError(f"{self.name}: was cut short while it was open; get a whole copy")
        return data


@dataclass(frozen=True)
class Directory:
    """Members in their order, and the comment of the archive.

    encoding: "utf-8", or "cp437" where the names that are not marked as UTF-8 are in a code page
    that nobody knows, each character standing for one byte.
    """

    members: list[Member]
    comment: bytes
    encoding: str

    @classmethod
    def of(cls, source: Source) -> Directory:
        """Read from the file, with the header of each member. Raises InputError and OSError."""
        # Many tools write UTF-8 and do not say so. No other encoding looks like it.
        encoding = "utf-8"
        try:
            try:
                listing = ZipFile(source, metadata_encoding=encoding)
            except UnicodeDecodeError:
                encoding = "cp437"
                listing = ZipFile(source, metadata_encoding=encoding)
            listing.close()  # not the file; what was read of it stays
        except InputError:
            raise
        except (BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
            raise _no_archive(source, error) from error
        starts = _starts(source, listing)
        return cls(list(_members(source, listing, starts, encoding)), listing.comment, encoding)


def _no_archive(source: Source, error: Exception) -> ContainerError:
    head = files.read_at(source.fileno(), len(_SIGNATURE), 0)
    if kind := _OTHERS.get(head) or _OTHERS.get(head[:2]):
        return ContainerError(f"{source.name}: must be a ZIP archive, got {kind}. Repack it as ZIP")
    if head.startswith(b"PK"):
        return ContainerError(
            f"{source.name}: is damaged or truncated ({error}). Get a complete copy"
        )
    return ContainerError(
        f"{source.name}: is not a ZIP archive ({error}). Use a ZIP archive, or images"
    )


def _starts(source: Source, listing: ZipFile) -> dict[ZipInfo, int]:
    """Where the data of each member begin, once it is certain that no two share any."""

    def damaged(info: ZipInfo, how: str) -> ContainerError:
        return ContainerError(
            f"{source.name}: is damaged or malicious: the member {info.orig_filename!r} {how}. Get "
            "a complete copy, or unpack it and convert the folder"
        )

    starts = {}
    ordered = sorted(listing.filelist, key=lambda info: info.header_offset)
    end = listing.start_dir
    for info in reversed(ordered):
        begin, data = info.header_offset, info.header_offset + _HEADER.size
        if begin < 0 or data > end:
            raise damaged(info, "overlaps another member, or is outside of the file")
        signature, *lengths = _HEADER.unpack(source.at(begin, _HEADER.size))
        if signature != _SIGNATURE:
            raise damaged(info, "does not start where the directory says")
        starts[info] = data + sum(lengths)
        if starts[info] + info.compress_size > end:
            raise damaged(info, "shares data with another member")
        end = begin
    # What is left of an archive that is cut short may end with an archive that was in it.
    if ordered and ordered[0].header_offset and source.at(0, len(_SIGNATURE)) == _SIGNATURE:
        raise damaged(ordered[0], "is first in the directory, but not in the file")
    return starts


def _members(
    source: Source, listing: ZipFile, starts: dict[ZipInfo, int], encoding: str
) -> Iterator[Member]:
    seen = set()
    for index, info in enumerate(listing.filelist):
        known = encoding == "utf-8" or bool(info.flag_bits & UTF_8)
        name = clean(info.orig_filename, known=known)  # zipfile ends `filename` at a NUL
        if name is None:
            raise ContainerError(
                f"{source.name}: the member {info.orig_filename!r} has a path outside of the "
                "target folder. Rename it, or remove it from the archive"
            )
        if name in seen and not name.endswith("/"):
            raise ContainerError(
                f"{source.name}: two members have the name {name!r}. Rename one, or remove it from "
                "the archive"
            )
        seen.add(name)
        kind = Page if _is_page(name) else Member
        yield kind(index, name, info, starts[info])


def _is_page(name: str) -> bool:
    *folders, last = name.split("/")
    return sources._is_image(last) and not any(map(sources._is_junk, folders))
