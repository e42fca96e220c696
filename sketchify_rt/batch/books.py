"""Converts an archive: its pages become an archive of sketches, and a line in the journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch.archives import Archive, Book
from sketchify_rt.batch.journal import Flaw, Origin
from sketchify_rt.batch.output import Output

if TYPE_CHECKING:
    from sketchify_rt.batch.archives import Page


class OpenBook:
    """Takes the pages of `archive` in any order, from several threads; `output` is the result.

    index: place of its job among the jobs. complete: whether all pages were taken, and the result
    is a file or cannot be one; taken: whether any of them is new.
    """

    def __init__(
        self, index: int, archive: Archive, output: Path, made: Origin, to: Output
    ) -> None:
        """`made` of the archive as it was opened."""
        self.index, self.archive, self.output = index, archive, output
        self._origin, self._to = made, to
        self._begun = time.perf_counter()
        self._failures: list[str] = []
        self._lasting = True  # all of them
        self._left = {page.index for page in archive.pages}
        self._book = Book(archive, output, to.folder.format, self._seal)
        self.complete = self.taken = False

    def put(self, page: Page, data: bytes | None, reason: str = "", lasting: bool = False) -> None:
        """A page, or, where it failed for a reason, None: it stays as it was.

        lasting: whether it would fail again; the archive is tried again unless all failed so.
        With the last one the archive is complete. Raises what `Book.put` raises, and OutputError
        where the journal cannot be written.
        """
        if data is None:
            self._failures.append(f"{page.name}: {reason}")
            self._lasting &= lasting
        try:
            self._book.put(page, data)
            self.taken |= data is not None
        finally:
            self._left.discard(page.index)
            if not self._left:
                self.complete = True
                self.archive.close()

    def _seal(self, status: os.stat_result) -> None:
        seconds = time.perf_counter() - self._begun
        flaw = None
        if self._failures:
            count = f"{len(self._failures)} of {len(self.archive.pages)} pages"
            reason = f"{count} stayed as they were; the first: {self._failures[0]}"
            flaw = Flaw(reason, self._lasting)
        self._to.converted(self._origin, self.output, status, seconds, flaw)

    def abort(self) -> None:
        """Let go of an archive that is not complete; of one that is, nothing."""
        self._book.abort()
        self.archive.close()
