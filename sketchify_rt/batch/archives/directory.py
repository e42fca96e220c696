"""Reads the directory of an archive, and checks that no member can do harm."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from sketchify_rt import files
from sketchify_rt.batch import kinds
from sketchify_rt.batch.archives.names import clean, unicode_path
from sketchify_rt.errors import ContainerError, InputError

# Bytes. A member of an archive takes 46 and its name; zipfile makes an object of some 540 bytes of
# it, in 8 µs: a quarter of a million members take 140 MB and 2 s.
MAX_DIRECTORY = 16 * 2**20

UTF_8 = 0x800
"""Flag of a member: its name is in UTF-8."""

_HEADER = struct.Struct("<4s22x2H")  # before a member's data: signature, lengths of name and extra
_SIGNATURE = b"PK\3\4"
_REPACK = "Repack it as ZIP (CBZ), or unpack it and convert the folder"
# What else may have the ending of an archive: where a signature is, what it is, and what to do.
_OTHERS = (
    (0, b"Rar!", "a RAR archive", _REPACK),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", _REPACK),
    (0, b"\x1f\x8b", "a gzip archive", _REPACK),
    (0, b"BZh", "a bzip2 archive", _REPACK),
    (0, b"\xfd7zXZ", "an xz archive", _REPACK),
    (257, b"ustar", "a tar archive", _REPACK),
    (0, b"%PDF", "a PDF file", "Name it .pdf"),
    (60, b"BOOKMOBI", "a Kindle book", "Convert it to EPUB or PDF"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, or a folder, if its name ends in "/".

    Attributes:
        index: Its place in the directory.
        name: Its path, see `names.clean`.
        info: What zipfile knows of it.
        start: Offset of its data in the archive.
        is_unicode: Whether the characters of its name are known. Else each stands for a byte.
    """

    index: int
    name: str
    info: ZipInfo
    start: int
    is_unicode: bool


class Page(Member):
    """A member that is a picture, by its ending."""

    __slots__ = ()


class Source(io.FileIO):
    """A file with an archive in it, of which zipfile can read only a part at once."""

    def read(self, size: int | None = -1, /) -> Any:
        """Reads like `io.FileIO`. Raises ContainerError for more than a directory may have."""
        if size is not None and size > MAX_DIRECTORY:
            raise ContainerError(
                f"{self.name}: has a directory of {size / 2**20:.0f} MiB, and at most "
                f"{MAX_DIRECTORY / 2**20:.0f} are read, enough for 100,000 pages; "
                "unpack it and convert the folder"
            )
        return super().read(size)

    def at(self, start: int, size: int) -> bytes:
        """Reads `size` bytes from `start`. Thread-safe. Raises InputError if there are fewer."""
        data = files.read_at(self.fileno(), size, start)
        if len(data) < size:
            raise InputError(f"{self.name}: was cut short while it was open; get a whole copy")
        return data


def read_directory(source: Source) -> tuple[list[Member], bytes]:
    """Reads the directory and the header of each member.

    Returns:
        The members in their order, and the comment of the archive.

    Raises:
        InputError: The archive is of another kind, damaged or malicious, see `Archive`.
        OSError: It cannot be read.
    """
    try:
        # Many tools write UTF-8 and do not say so. No other encoding looks like it.
        try:
            encoding, listing = "utf-8", ZipFile(source, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            encoding, listing = "cp437", ZipFile(source, metadata_encoding="cp437")
        listing.close()  # not the file; what was read of it stays
    except InputError:
        raise
    except (BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise _no_archive(source, error) from error
    starts = _starts(source, listing)
    return list(_members(source, listing, starts, encoding)), listing.comment


def _no_archive(source: Source, error: Exception) -> ContainerError:
    head = files.read_at(source.fileno(), 512, 0)
    for place, signature, kind, remedy in _OTHERS:
        if head.startswith(signature, place):
            return ContainerError(f"{source.name}: must be a ZIP archive, got {kind}. {remedy}")
    if head.startswith(b"PK"):
        return ContainerError(
            f"{source.name}: is damaged or truncated ({error}). Get a complete copy"
        )
    return ContainerError(
        f"{source.name}: is not a ZIP archive ({error}). Use a ZIP archive, or images"
    )


def _starts(source: Source, listing: ZipFile) -> dict[ZipInfo, int]:
    """Returns the offset of the data of each member. Raises ContainerError if any share data."""

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
        given, is_unicode = info.orig_filename, True  # zipfile ends `filename` at a NUL
        if not info.flag_bits & UTF_8:
            better = unicode_path(given.encode(encoding), info.extra)
            given, is_unicode = better or given, bool(better) or encoding == "utf-8"
        name = clean(given, is_unicode=is_unicode)
        if name is None:
            raise ContainerError(
                f"{source.name}: the member {given!r} has a path outside of the target folder. "
                "Rename it, or remove it from the archive"
            )
        if name in seen and not name.endswith("/"):
            raise ContainerError(
                f"{source.name}: two members have the name {name!r}. Rename one, or remove it from "
                "the archive"
            )
        seen.add(name)
        kind = Page if _is_page(name) else Member
        yield kind(index, name, info, starts[info], is_unicode)


def _is_page(name: str) -> bool:
    *folders, last = name.split("/")
    return kinds.is_image(last) and not any(map(kinds.is_junk, folders))
