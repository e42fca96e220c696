"""Draws pages of PDF files as luma, with PDFium.

Needs pypdfium2, which has PDFium in it. Without it, importing this module raises
BackendUnavailable.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from pathlib import Path
from typing import BinaryIO

from sketchify_rt.batch.budget import DRAWN
from sketchify_rt.errors import BackendUnavailable, ContainerError, DecodeError, InputError
from sketchify_rt.image import Gray, Rgb, to_luma
from sketchify_rt.options import MAX_PIXELS

try:
    import pypdfium2 as pdfium
    from pypdfium2 import raw
except ImportError as error:
    raise BackendUnavailable(
        f"PDF files need pypdfium2 ({error}). To fix: pip install 'sketchify-rt[pdf]'"
    ) from error

# Only one thread at a time may call PDFium, even for different documents. Reentrant, since the
# garbage collector may close one document while another is drawn.
_lock = threading.RLock()

_POINTS_PER_INCH = 72
# A file of 300 bytes may claim to have millions of pages, each of which would be reported.
_MAX_PAGES = 100_000
_HEAD = 1024  # bytes in which Acrobat looks for the header
_CHUNK = 2**20  # bytes that are searched at once for the end
_END = b"%%EOF"
# What is behind the end of a file only if it was changed later, and that part is not whole.
_OBJECT = re.compile(rb"\d\s+\d+\s+obj\b|\bend(?:obj|stream)\b")
# A file for the web begins with its length, and has an end in its beginning, too.
_LENGTH = re.compile(rb"/Linearized\b[^>]*?/L\s+(\d+)|/L\s+(\d+)[^>]*?/Linearized\b")
_REASONS = {
    raw.FPDF_ERR_PASSWORD: "is locked with a password; save a copy without one",
    raw.FPDF_ERR_SECURITY: "is encrypted in a way that PDFium does not know; save a copy without",
}

Points = tuple[float, float]
"""Width and height of a page; a point is 1/72 of an inch."""


def label(index: int, pages: int) -> str:
    """Returns the name of a page: "page-001" for index 0 of 100 to 999 pages."""
    return f"page-{index + 1:0{len(str(pages))}}"


def size(points: Points, dpi: int, max_pixels: int) -> int:
    """Returns the bytes of memory that drawing a page takes, 0 if it is refused."""
    with contextlib.suppress(InputError, DecodeError):
        scale = _scale("", points, dpi, max_pixels)
        return DRAWN * math.prod(math.ceil(side * scale) for side in points)
    return 0


def _scale(name: str, points: Points, dpi: int, max_pixels: int) -> float:
    """Returns the pixels per point. Raises DecodeError or InputError if it cannot be drawn."""
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


def _check_ends(path: Path) -> None:
    """Raises InputError for a file that has no beginning or end of a PDF file.

    PDFium would open it and draw what is missing as white pages. It accepts any bytes behind the
    end, and so does this.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
            if b"%PDF-" not in head:
                raise ContainerError(f"{path}: is {'no PDF file' if head else 'empty'}")
            length = _LENGTH.search(head)
            if (length and int(length[1] or length[2]) > size) or not _has_end(file, size):
                raise ContainerError(f"{path}: is cut short, its end is missing; get a whole copy")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({why})") from error


def _has_end(file: BinaryIO, size: int) -> bool:
    """Tells whether there is an end with no objects behind it."""
    behind = b""  # the beginning of what was searched before
    for start in range((size - 1) // _CHUNK * _CHUNK, -1, -_CHUNK):
        file.seek(start)
        chunk = file.read(_CHUNK) + behind
        _, end, rest = chunk.rpartition(_END)
        if _OBJECT.search(rest):
            return False
        if end:
            return True
        behind = chunk[:64]
    return False


class Pdf:
    """An open PDF file. `len` is the number of its pages, at least 1. Thread-safe.

    Attributes:
        path: The file, as it was given.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        """Opens the file.

        Args:
            path: The file.
            max_pixels: Largest number of pixels of a page. Larger ones are not drawn.

        Raises:
            InputError: The file cannot be read.
            ContainerError: It is no PDF file, or is damaged, truncated, locked with a password, or
                has over 100,000 pages.
        """
        self.path = path
        self._max_pixels = max_pixels
        self._document: pdfium.PdfDocument | None = None
        _check_ends(path)
        with _lock:
            try:
                # By path, so that of a large file only what is needed comes into memory.
                self._document = pdfium.PdfDocument(path)
                self._document.init_forms()
                self._length = len(self._document)
            except pdfium.PdfiumError as error:
                why = _REASONS.get(error.err_code, "is damaged; get a whole copy")
                raise ContainerError(f"{path}: {why}") from error
        if self._length > _MAX_PAGES:
            self.close()
            raise ContainerError(
                f"{path}: has too many pages: got {self._length}, at most {_MAX_PAGES} are "
                "read. Split it"
            )

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Pdf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. The garbage collector does it, too."""
        with _lock:
            if self._document is not None:
                self._document.close()
                self._document = None

    def __del__(self) -> None:
        # pypdfium2 would close it without the lock.
        if getattr(self, "_document", None) is not None:
            self.close()

    def label(self, index: int) -> str:
        """Returns the name of a page, see `label`."""
        return label(index, len(self))

    def points(self, index: int) -> Points:
        """Returns the width and height of a page, 0 if it has none."""
        with _lock, contextlib.suppress(pdfium.PdfiumError):
            if self._document is not None:
                width, height = map(float, self._document.get_page_size(index))
                return width, height
        return 0, 0

    def size(self, index: int, dpi: int = 200) -> int:
        """Returns the bytes of memory that `render` takes, 0 if it refuses."""
        return size(self.points(index), dpi, self._max_pixels)

    def render(self, index: int, dpi: int = 200, colours: bool = False) -> Gray | Rgb:
        """Draws a page upright on white, with its annotations. One thread draws at a time.

        Args:
            index: The page, from 0.
            dpi: Pixels per inch.
            colours: Give these instead of luma.

        Returns:
            Luma, uint8 (H, W), or RGB, (H, W, 3). The sides are rounded up.

        Raises:
            DecodeError: The page is damaged.
            InputError: It has more than `max_pixels` pixels, or the file is closed.
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
        return rgb if colours else to_luma(rgb)
