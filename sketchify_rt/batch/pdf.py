"""Pages of a PDF file -> luma, by PDFium.

Needs pypdfium2, which brings PDFium; importing this raises BackendUnavailable without it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path

from sketchify_rt.batch.budget import DRAWN
from sketchify_rt.errors import BackendUnavailable, ContainerError, DecodeError, InputError
from sketchify_rt.image import Gray, to_luma
from sketchify_rt.options import MAX_PIXELS

try:
    import pypdfium2 as pdfium
    from pypdfium2 import raw
except ImportError as error:
    raise BackendUnavailable(
        f"PDF files need pypdfium2 ({error}). To fix: pip install 'sketchify-rt[pdf]'"
    ) from error

# PDFium must not be called by two threads at once, not even for two documents. Reentrant, since the
# garbage collector may close a document in the middle of work on another.
_lock = threading.RLock()

_POINTS_PER_INCH = 72
# A file of 300 bytes may say that it has millions, each of which would be told of.
_MOST_PAGES = 100_000
# Where Acrobat looks for the header, from the start, and for the end, from the end.
_EDGE = 1024
_REASONS = {
    raw.FPDF_ERR_PASSWORD: "is locked with a password; save a copy without one",
    raw.FPDF_ERR_SECURITY: "is encrypted in a way that PDFium does not know; save a copy without",
}

Points = tuple[float, float]
"""Width and height of a page; a point is 1/72 of an inch."""


def label(index: int, pages: int) -> str:
    """Name of a page, counted from 0: "page-001" for the first of 100 to 999."""
    return f"page-{index + 1:0{len(str(pages))}}"


def size(points: Points, dpi: int, max_pixels: int) -> int:
    """Bytes of memory that drawing a page takes, colour and luma; 0 of one that is refused."""
    with contextlib.suppress(InputError, DecodeError):
        scale = _scale("", points, dpi, max_pixels)
        return DRAWN * math.prod(math.ceil(side * scale) for side in points)
    return 0


def _scale(name: str, points: Points, dpi: int, max_pixels: int) -> float:
    """Pixels per point. Raises DecodeError and InputError for what cannot be drawn."""
    scale = dpi / _POINTS_PER_INCH
    if not all(0 < side * scale < math.inf for side in points):
        raise DecodeError(name, f"has an invalid size ({points[0]:g} x {points[1]:g})")
    width, height = (math.ceil(side * scale) for side in points)
    if width * height > max_pixels:
        raise InputError(
            f"{name}: is {width} x {height} = {width * height} pixels at {dpi} dpi, over the "
            f"limit of {max_pixels}; give a lower dpi, or raise max_pixels"
        )
    return scale


class Pdf:
    """An open PDF file; `len` is the number of its pages, at least 1. Thread-safe.

    path: as given.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        """max_pixels: a page of more is refused before it is drawn.

        Raises InputError for what cannot be read, ContainerError for what is no PDF file, is
        damaged, cut short, locked with a password, or has over 100,000 pages. A file without its
        end is refused, though most of its pages might be drawn: what is missing would be blank.
        """
        self.path = path
        self._max_pixels = max_pixels
        self._document: pdfium.PdfDocument | None = None
        try:
            with path.open("rb") as file:
                head = file.read(_EDGE)
                file.seek(max(0, file.seek(0, 2) - _EDGE))
                tail = file.read()
        except (OSError, ValueError) as error:  # ValueError: no name that a file can have
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read ({why})") from error
        if b"%PDF-" not in head:
            raise ContainerError(f"{path}: is {'no PDF file' if head else 'empty'}")
        if b"%%EOF" not in tail:
            raise ContainerError(f"{path}: is cut short, its end is missing; get a whole copy")
        with _lock:
            try:
                # By path, so that of a large file only what is needed comes into memory.
                self._document = pdfium.PdfDocument(path)
                self._document.init_forms()
                self._length = len(self._document)
            except pdfium.PdfiumError as error:
                why = _REASONS.get(error.err_code, "is damaged; get a whole copy")
                raise ContainerError(f"{path}: {why}") from error
        if self._length > _MOST_PAGES:
            self.close()
            raise ContainerError(
                f"{path}: has too many pages: got {self._length}, at most {_MOST_PAGES} are "
                "read. Split it"
            )

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Pdf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # By itself pypdfium2 would do so without the lock.
        if getattr(self, "_document", None) is not None:
            self.close()

    def close(self) -> None:
        """Let go of the file. Done by the garbage collector where it is forgotten."""
        with _lock:
            if self._document is not None:
                self._document.close()
                self._document = None

    def label(self, index: int) -> str:
        """See `label`."""
        return label(index, len(self))

    def points(self, index: int) -> Points:
        """Width and height of a page, in points; 0 of one that has none."""
        with _lock, contextlib.suppress(pdfium.PdfiumError):
            if self._document is not None:
                width, height = map(float, self._document.get_page_size(index))
                return width, height
        return 0, 0

    def size(self, index: int, dpi: int = 200) -> int:
        """Bytes of memory that `render` takes, colour and luma; 0 where it refuses."""
        return size(self.points(index), dpi, self._max_pixels)

    def render(self, index: int, dpi: int = 200) -> Gray:
        """A page, counted from 0, upright on white with its annotations, as luma (H, W).

        dpi: pixels per inch; sides are rounded up. A page that is one scan is drawn like any other.
        One thread draws at a time, see `_lock`. Raises DecodeError for a damaged page, InputError
        for one of more than `max_pixels`.
        """
        name = f"{self.path}/{self.label(index)}"
        with _lock:
            if self._document is None:
                raise InputError(f"{self.path}: is closed")
            try:
                with contextlib.closing(self._document[index]) as page:
                    scale = _scale(name, page.get_size(), dpi, self._max_pixels)
                    with contextlib.closing(page.render(scale, rev_byteorder=True)) as bitmap:
                        rgb = bitmap.to_numpy()  # stays when the bitmap goes
            except pdfium.PdfiumError as error:
                raise DecodeError(name, f"is damaged ({error}); get a whole copy") from error
        return to_luma(rgb)
