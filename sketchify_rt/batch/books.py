"""Converts an archive: its pages become an archive of sketches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sketchify_rt.batch.archives import Archive, Book
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert

if TYPE_CHECKING:
    from sketchify_rt.batch.archives import Page


class OpenBook:
    """Takes the pages of an archive in any order, from several threads.

    Attributes:
        whole: The archive as an item.
        archive: The archive.
        complete: Whether all pages were taken, and the result is a file or cannot be one.
        taken: Whether any page is new.
    """

    def __init__(self, whole: Item, archive: Archive, output: Output) -> None:
        """Begins the result, if the output folder is open.

        Args:
            whole: The archive as an item.
            archive: The archive, opened after `whole` was looked at.
            output: The output folder.

        Raises:
            OutputError: The result cannot be begun.
        """
        self.whole, self.archive, self._output = whole, archive, output
        if output.staging.is_open:
            output.begin(whole)
        self._failures: list[str] = []
        self._lasting = True  # all of them
        self._left = {page.index for page in archive.pages}
        path = output.root / whole.output
        file, spill = output.file(whole), output.staging.folder
        self._book = Book(archive, path, output.format, file, spill)
        self.complete = self.taken = False

    def item(self, page: Page) -> Item:
        """Returns the item of a page."""
        whole, archive = self.whole, self.archive
        return Item(
            whole.index,
            whole.path,
            whole.output,
            page.name,
            whole.stat,
            whole.content,
            lambda: archive.read(page),
            lambda: archive.size(page),
            book=(self, page),
            decision=Convert(),
        )

    def put(self, page: Page, data: bytes | None, reason: str = "", lasting: bool = False) -> None:
        """Takes a page. With the last one the archive is complete.

        Args:
            page: The page.
            data: Its sketch. None if it failed: then it stays as it was.
            reason: Why it failed.
            lasting: Whether it would fail again. The archive is tried again unless all would.

        Raises:
            OutputError: The archive or the journal cannot be written.
            InputError: The source cannot be read any more.
        """
        if data is None:
            self._failures.append(f"{page.name}: {reason}")
            self._lasting &= lasting
            count = f"{len(self._failures)} of {len(self.archive.pages)} pages"
            reason = f"{count} stayed as they were; the first: {self._failures[0]}"
            self.whole.flaw = reason, self._lasting
        try:
            self._book.put(page, data)
            self.taken |= data is not None
        finally:
            self._left.discard(page.index)
            if not self._left:
                self.complete = True
                self.archive.close()

    def abort(self) -> None:
        """Closes an archive that is not complete, and removes what was written of its result."""
        self._book.abort()
        self._output.end(self.whole)
        self.archive.close()
