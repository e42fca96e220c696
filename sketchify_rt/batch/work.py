"""Makes tasks of jobs: one for an image, one for each page of an archive or a PDF file."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch.hints import HintFolder
from sketchify_rt.batch.journal import Origin
from sketchify_rt.batch.output import Output, origin
from sketchify_rt.batch.runner import Outcome
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.batch.tasks import FileTask, PageTask, Settled, Task
from sketchify_rt.errors import InputError
from sketchify_rt.options import MAX_PIXELS, MAX_THREADS, Alpha

if TYPE_CHECKING:
    from sketchify_rt.batch.books import OpenBook
    from sketchify_rt.batch.decoders import Decoders

Tasks = tuple[int, Iterator[Task]]
"""How many there are, and these."""


@dataclass
class Work:
    """Tasks of all jobs but videos, in order; `len` is their number as far as is known.

    unpack: make files of the pages of an archive, rather than an archive; dpi: of PDF pages;
    max_pixels: of one of these; decoders: the processes that open PDF files, rather than this one;
    videos, for which there are none, are refused then; hints: a folder of hints; alpha: of the
    encoding, of which videos hold no "lines". videos: those that were passed over, once it was
    iterated.
    """

    jobs: Sources
    to: Output
    unpack: bool = False
    dpi: int = 200
    max_pixels: int = MAX_PIXELS
    decoders: Decoders | None = None
    hints: Path | None = None
    alpha: Alpha = "white"
    videos: list[tuple[int, Job]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._length = len(self.jobs)
        self._books: list[OpenBook] = []
        self._hints = HintFolder(self.hints) if self.hints else None

    def __len__(self) -> int:
        return self._length

    @property
    def most_workers(self) -> int:
        """Threads that have something to do: no more than there are images, if there is no more."""
        first = itertools.islice(self.jobs, MAX_THREADS)
        return len(self.jobs) if all(job.kind == "image" for job in first) else MAX_THREADS

    def __iter__(self) -> Iterator[Task]:
        several = {"archive": self._archive, "pdf": self._pdf}
        for index, job in enumerate(self.jobs):
            if job.kind == "image":
                yield FileTask(index, job.source, job.stem, self.to, hints=self._hints)
            elif error := self._refused(job):
                yield Settled(index, job.source, self.to, error=error)
            elif job.kind == "video":
                self._length -= 1
                self.videos.append((index, job))
            else:
                whole = None
                try:
                    whole = origin(job.source)  # before anything opens it
                    count, tasks = several[job.kind](index, job, whole)
                except Exception as error:
                    settled = Settled(index, job.source, self.to, error=error, whole=whole)
                    count, tasks = 1, iter([settled])
                self._length += count - 1
                yield from tasks

    def _refused(self, job: Job) -> InputError | None:
        """Returns the reason why a file of several pictures cannot be converted."""
        if job.kind == "video" and self.decoders:
            return InputError(
                f"{job.source}: --isolate does not support videos. Convert it without --isolate if "
                "you trust it"
            )
        if job.kind == "video" and self.alpha == "lines":
            return InputError(
                f"{job.source}: --alpha lines does not support videos. Convert it without --alpha"
            )
        single = job.kind == "video" or (job.kind == "archive" and not self.unpack)
        try:
            if not self._hints or not single or not self._hints.holds(job.stem):
                return None
        except InputError as error:
            return error
        return InputError(
            f"{job.source}: a folder of hints supports pictures, pages of PDF files and, with "
            f"--unpack, pages of archives. Remove {self._hints.folder / job.stem}"
        )

    def _archive(self, index: int, job: Job, whole: Origin) -> Tasks:
        from sketchify_rt.batch.archives import Archive
        from sketchify_rt.batch.books import OpenBook

        if self.unpack:
            if self.to.passes_over(whole):
                return 1, iter([Settled(index, job.source, self.to)])
            self.to.settling.check(whole)
            archive = Archive(job.source)
            return len(archive.pages), (
                FileTask(
                    index,
                    job.source,
                    f"{job.stem}/{archive.stem(page)}",
                    self.to,
                    page.name,
                    whole,
                    functools.partial(archive.read, page),
                    functools.partial(archive.size, page),
                    hints=self._hints,
                )
                for page in archive.pages
            )
        output = self.to.folder.place(job.stem)
        if not self.to.wants(whole, output):
            return 1, iter([Settled(index, job.source, self.to, output)])
        book = OpenBook(index, Archive(job.source), output, whole, self.to)
        self._books = [*(book for book in self._books if not book.complete), book]
        pages = book.archive.pages
        return len(pages), (PageTask(index, page, book) for page in pages)

    def _pdf(self, index: int, job: Job, whole: Origin) -> Tasks:
        from sketchify_rt.batch.isolated_pdf import IsolatedPdf
        from sketchify_rt.batch.pdf import Pdf

        if self.to.passes_over(whole):
            return 1, iter([Settled(index, job.source, self.to)])
        self.to.settling.check(whole)
        pdf: Pdf | IsolatedPdf
        if self.decoders:
            pdf = IsolatedPdf(job.source, self.decoders, self.max_pixels)
        else:
            pdf = Pdf(job.source, self.max_pixels)
        return len(pdf), (
            FileTask(
                index,
                job.source,
                f"{job.stem}/{pdf.label(number)}",
                self.to,
                pdf.label(number),
                whole,
                functools.partial(pdf.render, number, self.dpi),
                functools.partial(pdf.size, number, self.dpi),
                draws=True,
                hints=self._hints,
            )
            for number in range(len(pdf))
        )

    def unfinished(self) -> Iterator[Outcome]:
        """Returns archives that lost converted pages, after the run has ended."""
        for book in self._books:
            if book.taken and not book.complete:
                reason = "was not finished, so that its new pages are lost; run it again"
                yield Outcome(book.index, book.archive.path, None, "failed", reason)

    def close(self) -> None:
        """Closes the archives that are not finished. They are not written."""
        for book in self._books:
            book.abort()
