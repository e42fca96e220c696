"""One image to convert: whether it must be, how it is read, and where its sketch goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sketchify_rt.batch import hints
from sketchify_rt.batch.budget import DRAWN, per_pixel
from sketchify_rt.batch.journal import Origin
from sketchify_rt.batch.output import Output, origin
from sketchify_rt.batch.sinks import write
from sketchify_rt.options import Encoding

if TYPE_CHECKING:
    from sketchify_rt.batch.archives import Page
    from sketchify_rt.batch.books import OpenBook
    from sketchify_rt.batch.hints import HintFolder
    from sketchify_rt.inputs import Loaded


class Task(Protocol):
    """One image; what its functions are called with comes from the runner, in this order."""

    @property
    def index(self) -> int:
        """Place of its job among the jobs."""

    @property
    def source(self) -> Path:
        """What a user calls it."""

    @property
    def output(self) -> Path | None:
        """Where the result goes, once that is known."""

    def wanted(self) -> bool:
        """Whether its result is to be made; raises where it must not be, or cannot be known."""

    def size(self) -> int:
        """Bytes of memory that `read` takes. Raises InputError."""

    def need(self, encoding: Encoding) -> int | None:
        """Bytes of memory that it takes in all; None where only reading it tells."""

    def read(self) -> Loaded:
        """The image, decoded only where it is no file of its own. Raises InputError."""

    def write(self, data: bytes, seconds: float) -> None:
        """Keep the result, which took so long. Raises OutputError."""

    def fail(self, reason: str, lasting: bool, seconds: float) -> None:
        """Note that there is none; lasting: the input is to blame. Raises OutputError."""


@dataclass(slots=True)
class FileTask:
    """An image that becomes a file in the output folder.

    stem: of the result, below that folder, without its ending; page: label of a page in the file
    `path`, or "", and whole: that file as it was before it was opened; load: reads the page, and
    takes as many bytes as `weigh` says, the file itself if None; draws: what it gives
    are pixels, of DRAWN bytes each by `weigh`; hints: where to look for its hint.
    """

    index: int
    path: Path
    stem: str
    to: Output
    page: str = ""
    whole: Origin | None = None
    load: Callable[[], Loaded] | None = None
    weigh: Callable[[], int] | None = None
    draws: bool = False
    hints: HintFolder | None = None
    output: Path | None = None
    _hint: Path | None = field(default=None, repr=False)
    _origin: Origin | None = field(default=None, repr=False)

    @property
    def source(self) -> Path:
        """What a user calls it."""
        return self.path / self.page if self.page else self.path

    def wanted(self) -> bool:
        """See `Output.wants`."""
        self.output = self.to.folder.place(f"{self.stem}.{self.to.folder.format}")
        # Before it is read: a change meanwhile is one that the next run sees.
        self._origin = self.whole.page(self.page) if self.whole else origin(self.path)
        if self.hints and (hint := self.hints.find(self.stem)):
            self._origin, self._hint = self._origin.hinted(origin(hint)), hint
        return self.to.wants(self._origin, self.output)

    def size(self) -> int:
        """Of the file, or what `weigh` gives."""
        if self.weigh is not None:
            return self.weigh()
        return self._origin.size if self._origin else 0

    def need(self, encoding: Encoding) -> int | None:
        """Of pixels that are drawn."""
        return self.size() // DRAWN * per_pixel("luma", encoding) if self.draws else None

    def read(self) -> Loaded:
        """The bytes of the file, or what `load` gives, with its hint."""
        from sketchify_rt import inputs  # with NumPy, which --help does without

        image = self.load() if self.load is not None else inputs.load(self.path)
        return hints.give(image, self._hint) if self._hint else image

    def write(self, data: bytes, seconds: float) -> None:
        """A file, noted in the journal just before it gets its name."""
        made, path = self._origin, self.output
        assert made is not None and path is not None  # noqa: S101 (`wanted` was asked before)
        write(path, data, lambda status: self.to.converted(made, path, status, seconds))

    def fail(self, reason: str, lasting: bool, seconds: float) -> None:
        """A line in the journal, where the input could be seen at all."""
        if self._origin is not None:
            self.to.journal.failed(self._origin, reason, lasting, seconds)


@dataclass(slots=True)
class Settled:
    """A job of which is known before its turn that it is done, or, by an error, that it fails.

    whole: the file as it was before it was opened, None where it could not be seen.
    """

    index: int
    source: Path
    to: Output
    output: Path | None = None
    error: Exception | None = None
    whole: Origin | None = None

    def wanted(self) -> bool:
        """Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return False

    def size(self) -> int:
        """Never asked for."""
        raise NotImplementedError

    def need(self, encoding: Encoding) -> int | None:
        """Never asked for."""
        raise NotImplementedError

    def read(self) -> Loaded:
        """Never asked for."""
        raise NotImplementedError

    def write(self, data: bytes, seconds: float) -> None:
        """Never asked for."""
        raise NotImplementedError

    def fail(self, reason: str, lasting: bool, seconds: float) -> None:
        """As `FileTask.fail`."""
        if self.whole is not None:
            self.to.journal.failed(self.whole, reason, lasting, seconds)


@dataclass(slots=True)
class PageTask:
    """A page of an archive that becomes a page of the archive of results."""

    index: int
    page: Page
    book: OpenBook

    @property
    def source(self) -> Path:
        """What a user calls it."""
        return self.book.archive.path / self.page.name

    @property
    def output(self) -> Path:
        """The archive of results."""
        return self.book.output

    def wanted(self) -> bool:
        """The archive is, else it would not have been opened."""
        return True

    def size(self) -> int:
        """Of the page, packed and unpacked."""
        return self.book.archive.size(self.page)

    def need(self, encoding: Encoding) -> int | None:
        """Its header tells."""

    def read(self) -> Loaded:
        """The bytes of the page."""
        return self.book.archive.read(self.page)

    def write(self, data: bytes, seconds: float) -> None:
        """Into the archive, which is a file once all its pages are there."""
        self.book.put(self.page, data)

    def fail(self, reason: str, lasting: bool, seconds: float) -> None:
        """The page stays as it was, so that none is missing."""
        self.book.put(self.page, None, reason, lasting)
