"""Sketches -> an archive like the one that their pages are from."""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from copy import copy
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP64_LIMIT, ZIP_STORED, ZipFile, ZipInfo

from isal import isal_zlib

from sketchify_rt.batch.archives.directory import UTF_8, Member, Page
from sketchify_rt.batch.archives.reader import ENCRYPTED, Archive
from sketchify_rt.batch.archives.waiting import Waiting
from sketchify_rt.errors import OutputError, SketchifyError
from sketchify_rt.files import whole
from sketchify_rt.options import Format

_SIZES_FOLLOW = 0x8  # flag of a member whose sizes stand behind its data
_ZIP64 = 1  # kind of extra field
_MOST_EXTRA = 0xFFFF - 28  # bytes, less those of a ZIP64 field


class Book:
    """The archive of the results, which takes them in any order. Thread-safe.

    It has the members of the source in their order, with their dates, comments and attributes.
    Pages are named as `Archive.stem` says, and stored, being compressed already. All others, and
    pages that failed, are copied as they are, never unpacked: so nothing is lost of what cannot be
    read, and no bomb goes off.
    """

    def __init__(
        self,
        archive: Archive,
        output: Path,
        ending: Format,
        file: AbstractContextManager[BinaryIO] | None = None,
        spill: Path | None = None,
    ) -> None:
        """A file begins with the first page, and gets its name, `output`, with the last.

        file: to write to, by default `files.whole`; ending: of the new pages;
        spill: folder for pages that wait, by default that of the result.
        """
        self._archive, self._output = archive, output
        self._names = _result_names(archive, ending)
        self._ready = Waiting(spill or output.parent)  # pages, by their place among the members
        self._made: list[ZipInfo] = []
        self._over: SketchifyError | None = None  # why it takes no more
        self._lock = threading.Lock()
        self._whole = file or whole(output)
        self._begun = False
        self._file: BinaryIO

    def put(self, page: Page, data: bytes | None) -> bool:
        """Take the result for a page, None to keep the page; whether the archive is now complete.

        Raises OutputError, with `errno` set, where it cannot be written, InputError where the
        source can no longer be read; then there is no archive, and the same is raised from there.
        """
        with self._lock:
            if self._over:
                raise copy(self._over)  # the traceback of one for all would keep all their results
            try:
                with ExitStack() as stack:
                    if self._begun:
                        stack.push(self._whole)
                    else:
                        self._file, self._begun = stack.enter_context(self._whole), True
                    self._ready.put(page.index, data)
                    if complete := self._write_ready():
                        self._write_directory()
                    else:
                        stack.pop_all()
            except BaseException as error:
                self._end(copy(error) if isinstance(error, SketchifyError) else self._given_up())
                raise
            if complete:
                self._end(OutputError(f"{self._output}: is complete already"))
            return complete

    def abort(self) -> None:
        """Leave no file, unless it is complete."""
        with self._lock, suppress(OutputError), ExitStack() as stack:
            if not self._over:
                self._end(given_up := self._given_up())
                if self._begun:
                    stack.push(self._whole)
                raise given_up

    def _given_up(self) -> OutputError:
        return OutputError(f"{self._output}: was not completed. Run the same command again")

    def _end(self, why: SketchifyError) -> None:
        self._over = why
        self._ready.clear()

    def _write_ready(self) -> bool:
        """Write the members whose turn it is; whether all are written."""
        members = self._archive.members
        while len(self._made) < len(members):
            member, data = members[len(self._made)], None
            if isinstance(member, Page):
                if member.index not in self._ready:
                    return False
                data = self._ready.pop(member.index)
            if data is None:
                self._write(self._like(member), self._archive.raw(member))
            else:
                self._write(self._sketch(member, data), [data])
        return True

    def _like(self, member: Member) -> _Entry:
        old, new = member.info, _Entry(member.name, member.info.date_time)
        for field in _KEPT:
            setattr(new, field, getattr(old, field))
        new.extra = _without_zip64(old.extra)
        if self._archive.encoding == "utf-8" and not member.name.isascii():
            new.flag_bits |= UTF_8
        if not old.flag_bits & ENCRYPTED:  # else the password is checked against its time
            new.flag_bits &= ~_SIZES_FOLLOW
        return new

    def _sketch(self, page: Member, data: bytes) -> _Entry:
        new = self._like(page)
        new.filename = self._names[page.index]
        new.flag_bits &= UTF_8
        new.compress_type = ZIP_STORED
        new.compress_size = new.file_size = len(data)
        new.CRC = isal_zlib.crc32(data)
        return new

    def _write(self, entry: _Entry, chunks: Iterable[bytes]) -> None:
        entry.header_offset = self._file.tell()
        large = max(entry.file_size, entry.compress_size) > ZIP64_LIMIT
        self._file.write(entry.FileHeader(large))
        self._file.writelines(chunks)
        if entry.flag_bits & _SIZES_FOLLOW:
            form = struct.Struct("<4sLQQ" if large else "<4sLLL")
            sizes = entry.compress_size, entry.file_size
            self._file.write(form.pack(b"PK\7\10", entry.CRC, *sizes))
        self._made.append(entry)

    def _write_directory(self) -> None:
        with ZipFile(self._file, "w") as directory:
            directory.filelist.extend(self._made)
            directory.comment = self._archive.comment


# What of a member stays the same in its copy.
_KEPT = (
    "compress_type",
    "comment",
    "create_system",
    "create_version",
    "extract_version",
    "flag_bits",
    "internal_attr",
    "external_attr",
    "CRC",
    "compress_size",
    "file_size",
)


class _Entry(ZipInfo):
    """A member whose name is written in the encoding that it was in."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 (zipfile's own)
        if self.flag_bits & UTF_8:
            return self.filename.encode(), self.flag_bits
        return self.filename.encode("cp437"), self.flag_bits


def _result_names(archive: Archive, ending: Format) -> dict[int, str]:
    """Of all pages, by index; no two alike, nor like another member's, whatever the case.

    They hang on the names in the archive, not on what becomes of the pages.
    """
    taken = {member.name.rstrip("/").casefold() for member in archive.members}
    ordered = sorted(taken)

    def folder(name: str) -> bool:
        """Whether a member lies in it. A set of all folders would not be bounded by the names."""
        place = bisect_left(ordered, f"{name}/")
        return place < len(ordered) and ordered[place].startswith(f"{name}/")

    result = {}
    for page in archive.pages:
        stem, own = archive.stem(page), page.name.casefold()
        while (key := (name := f"{stem}.{ending}").casefold()) != own and (
            key in taken or folder(key)
        ):
            stem += "~"
        taken.add(key)
        result[page.index] = name
    return result


def _without_zip64(extra: bytes) -> bytes:
    """Extra fields but the one of ZIP64, which is made anew; none where there is no room for it."""
    kept, rest = b"", extra
    while len(rest) >= 4:
        kind, size = struct.unpack_from("<2H", rest)
        field, rest = rest[: 4 + size], rest[4 + size :]
        kept += field if kind != _ZIP64 else b""
    return kept if len(kept) <= _MOST_EXTRA else b""
