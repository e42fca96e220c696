"""Makes items of the inputs: one of a picture, one of each page of an archive or a PDF file."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch.hints import HintFolder
from sketchify_rt.batch.item import Item, checksum_of_ends
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert, Fail
from sketchify_rt.batch.runner import Outcome
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.errors import InputError
from sketchify_rt.options import MAX_PIXELS, MAX_THREADS

if TYPE_CHECKING:
    from sketchify_rt.batch.books import OpenBook
    from sketchify_rt.batch.decoders import Decoders
    from sketchify_rt.inputs import Loaded


@dataclass
class Items:
    """Iterable of the items of all inputs but videos, in order.

    `len` is their number as far as is known: it grows when a file of pages is opened.

    Attributes:
        sources: The inputs.
        output: The output folder.
        unpack: Make files of the pages of an archive, rather than an archive.
        dpi: Resolution of PDF pages in pixels per inch.
        max_pixels: Most pixels of such a page.
        decoders: The processes that open PDF files; None for this process.
        hints: Folder of hints.
        colours: Draw pages in colour.
        videos: The videos among the inputs, with their numbers, once all items were taken.
    """

    sources: Sources
    output: Output
    unpack: bool = False
    dpi: int = 200
    max_pixels: int = MAX_PIXELS
    decoders: Decoders | None = None
    hints: Path | None = None
    colours: bool = False
    videos: list[tuple[int, Job]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._length = len(self.sources)
        self._books: list[OpenBook] = []
        self._hints = HintFolder(self.hints) if self.hints else None

    def __len__(self) -> int:
        return self._length

    @property
    def max_workers(self) -> int:
        """Most threads that have something to do."""
        first = itertools.islice(self.sources, MAX_THREADS)
        return len(self.sources) if all(job.kind == "image" for job in first) else MAX_THREADS

    def __iter__(self) -> Iterator[Item]:
        several = {"archive": self._archive, "pdf": self._pdf}
        for index, job in enumerate(self.sources):
            if job.kind == "image":
                yield self._file(Item(index, job.source, ""), job.stem)
            elif job.kind == "video":
                self._length -= 1
                self.videos.append((index, job))
            else:
                whole = Item(index, job.source, job.stem)
                try:
                    count, pages = several[job.kind](whole)
                except Exception as error:
                    whole.decision = Fail(error)
                    count, pages = 1, iter([whole])
                self._length += count - 1
                yield from pages

    def _file(self, item: Item, stem: str) -> Item:
        """The item with a file as its result. stem: its path without the ending."""
        item.output = f"{stem}.{self.output.format}"
        if self._hints:
            try:
                item.hint = self._hints.find(stem)
            except InputError as error:
                item.decision = Fail(error)
        return item

    def _archive(self, whole: Item) -> tuple[int, Iterator[Item]]:
        from sketchify_rt.batch.archives import Archive
        from sketchify_rt.batch.books import OpenBook

        whole.folder = self.unpack
        if not self.unpack and (why := self.why_no_hints(whole.path, whole.output)):
            raise InputError(f"{whole.path}: {why}")
        if self._settled(whole):
            return 1, iter([whole])
        archive = Archive(whole.path)
        if self.unpack:
            return len(archive.pages), (
                self._page(
                    whole,
                    f"{whole.output}/{archive.stem(page)}",
                    page.name,
                    functools.partial(archive.read, page),
                    functools.partial(archive.size, page),
                )
                for page in archive.pages
            )
        book = OpenBook(whole, archive, self.output)
        self._books = [*(book for book in self._books if not book.complete), book]
        return len(archive.pages), map(book.item, archive.pages)

    def _pdf(self, whole: Item) -> tuple[int, Iterator[Item]]:
        from sketchify_rt.batch.isolated_pdf import IsolatedPdf
        from sketchify_rt.batch.pdf import Pdf

        whole.folder = True
        if self._settled(whole):
            return 1, iter([whole])
        if self.decoders:
            pdf: Pdf | IsolatedPdf = IsolatedPdf(whole.path, self.decoders, self.max_pixels)
        else:
            with self.output.marked(whole):
                pdf = Pdf(whole.path, self.max_pixels)
        return len(pdf), (
            self._page(
                whole,
                f"{whole.output}/{pdf.label(number)}",
                pdf.label(number),
                functools.partial(pdf.render, number, self.dpi, self.colours),
                functools.partial(pdf.size, number, self.dpi),
                drawn=True,
            )
            for number in range(len(pdf))
        )

    def _settled(self, whole: Item) -> bool:
        """Whether a file of pages needs not be opened. Then it has a decision."""
        whole.look()  # before it is opened, so that a later change is seen
        whole.content = checksum_of_ends(whole.path)
        decision = self.output.decide(whole)
        if isinstance(decision, Convert):
            return False
        whole.decision = decision
        return True

    def _page(
        self,
        whole: Item,
        stem: str,
        member: str,
        load: Callable[[], Loaded],
        weigh: Callable[[], int],
        drawn: bool = False,
    ) -> Item:
        item = Item(
            whole.index, whole.path, "", member, whole.stat, whole.content, load, weigh, drawn
        )
        return self._file(item, stem)

    def why_no_hints(self, path: Path, stem: str) -> str:
        """Returns why an input with a single file as its result cannot have hints, or ""."""
        try:
            if not self._hints or not self._hints.holds(stem):
                return ""
        except InputError as error:
            return str(error)
        return (
            "a folder of hints supports pictures, pages of PDF files and, with --unpack, pages of "
            f"archives. Remove {self._hints.folder / stem}"
        )

    def unfinished(self) -> Iterator[Outcome]:
        """Yields the archives that lost converted pages, after the run has ended."""
        for book in self._books:
            if book.taken and not book.complete:
                reason = "was not finished, so that its new pages are lost; run it again"
                yield Outcome(book.whole.index, book.archive.path, None, "failed", reason)

    def close(self) -> None:
        """Closes the archives that are not finished. They are not written."""
        for book in self._books:
            book.abort()
