"""Writes an archive of sketches that is otherwise like the archive of their pages."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from copy import copy
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP64_LIMIT, ZIP_STORED, ZipFile, ZipInfo

from isal import isal_zlib

from sketchify_rt.batch.archives.directory import UTF_8, Member, Page
from sketchify_rt.batch.archives.names import UNICODE_PATH, extra_fields
from sketchify_rt.batch.archives.reader import ENCRYPTED, Archive
from sketchify_rt.batch.archives.waiting import Waiting
from sketchify_rt.batch.result_names import Folders, fold
from sketchify_rt.errors import OutputError, SketchifyError
from sketchify_rt.files import whole
from sketchify_rt.options import Format

_SIZES_FOLLOW = 0x8  # flag of a member whose sizes are behind its data
_ZIP64 = 1  # kind of extra field
_MAX_EXTRA = 0xFFFF - 28  # bytes, less those of a ZIP64 field
# What of a member stays the same in its copy.
_KEPT = """compress_type comment create_system create_version extract_version flag_bits
    internal_attr external_attr CRC compress_size file_size""".split()  # noqa: SIM905


class Book:
    """The archive of the results, which takes pages in any order. Thread-safe.

    It has the members of the source in their order, with their dates, comments and attributes.
    Results are named by `Archive.stem`. They are stored, since they are compressed already. All
    other members, and pages that failed, are copied as they are and never unpacked: what cannot be
    read is not lost, and no bomb explodes.
    """

    def __init__(
        self,
        archive: Archive,
        output: Path,
        ending: Format,
        file: AbstractContextManager[BinaryIO] | None = None,
        spill: Path | None = None,
    ) -> None:
        """Writes nothing yet. The file begins with the first page.

        Args:
            archive: The source.
            output: Name of the file, which it gets with the last page.
            ending: Of the results.
            file: To write to. None for `files.whole` of `output`.
            spill: Folder for pages that wait. None for that of the result.
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
        """Takes a result.

        Args:
            page: Its page.
            data: The encoded sketch; None to keep the page.

        Returns:
            Whether the archive is complete now.

        Raises:
            OutputError: The archive cannot be written. `errno` is set. There is no archive, and
                all later calls raise the same.
            InputError: The same, because the source can no longer be read.
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
        """Discards the archive, unless it is complete."""
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
        """Writes the members whose turn it is. Returns whether all are written."""
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
        """Makes the entry of a copy."""
        old, new = member.info, _Entry(member.name, member.info.date_time)
        for field in _KEPT:
            setattr(new, field, getattr(old, field))
        new.extra = _kept_extra(old.extra)
        if member.is_unicode and not member.name.isascii():
            new.flag_bits |= UTF_8
        if not old.flag_bits & ENCRYPTED:  # else the flag tells how the password is checked
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


class _Entry(ZipInfo):
    """A member whose name is written in its own encoding."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 (zipfile's own)
        if self.flag_bits & UTF_8:
            return self.filename.encode(), self.flag_bits
        return self.filename.encode("cp437"), self.flag_bits


def _result_names(archive: Archive, ending: Format) -> dict[int, str]:
    """Returns the names of the results by the index of their pages.

    No two are equal, nor is one equal to another member or a folder, whatever the case. They depend
    on the names in the archive, and not on which pages fail.
    """
    taken = {fold(member.name.rstrip("/")) for member in archive.members}
    folders = Folders(fold(member.name.rpartition("/")[0]) for member in archive.members)
    result = {}
    for page in archive.pages:
        stem, own = archive.stem(page), fold(page.name)
        while (key := fold(name := f"{stem}.{ending}")) != own and (key in taken or key in folders):
            stem += "~"
        taken.add(key)
        result[page.index] = name
    return result


def _kept_extra(extra: bytes) -> bytes:
    """Returns the extra fields of a copy, none if there is no room for them.

    `zipfile` writes its own ZIP64 field. The name in a Unicode Path field is the member's now.
    """
    fields = extra_fields(extra)
    kept = b"".join(field for kind, field in fields if kind not in (_ZIP64, UNICODE_PATH))
    return kept if len(kept) <= _MAX_EXTRA else b""
