"""Draws pages of PDF files in the processes of `decoders`, which may hang or crash."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch import pdf
from sketchify_rt.batch.pdf import Pdf, Points
from sketchify_rt.image import Gray, to_luma
from sketchify_rt.inputs import Picture
from sketchify_rt.options import MAX_PIXELS

if TYPE_CHECKING:
    from sketchify_rt.batch.decode_worker import Tools
    from sketchify_rt.batch.decoders import Decoders
    from sketchify_rt.codec.extras import Extras


class IsolatedPdf:
    """Like `Pdf`, but opens and draws nothing in this process. Draws several pages at a time."""

    def __init__(self, path: Path, decoders: Decoders, max_pixels: int = MAX_PIXELS) -> None:
        """Opens the file.

        Args:
            path: The file.
            decoders: The processes.
            max_pixels: That of `decoders`.

        Raises:
            SketchifyError: What `Pdf` and `Decoders.decode` raise.
        """
        self.path, self._decoders, self._max_pixels = path, decoders, max_pixels
        _, points = decoders.run(_Survey(path))
        self._points: list[Points] = points

    def __len__(self) -> int:
        return len(self._points)

    def label(self, index: int) -> str:
        """Returns the name of a page, see `pdf.label`."""
        return pdf.label(index, len(self))

    def size(self, index: int, dpi: int = 200) -> int:
        """Returns the bytes of memory that `render` takes, 0 if it refuses."""
        return pdf.size(self._points[index], dpi, self._max_pixels)

    def render(self, index: int, dpi: int = 200, colours: bool = False) -> Gray | Picture:
        """Draws a page, see `Pdf.render`. Raises what that and `Decoders.decode` raise.

        In colour it is a Picture.
        """
        page = _Page(self.path, self.label(index), index, dpi, colours)
        luma, extras = self._decoders.run(page)
        assert luma is not None  # noqa: S101 (the job gives luma)
        return Picture(page.name, luma, extras) if colours else luma


@dataclass(frozen=True)
class _Survey:
    """Returns the sizes of all pages."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def run(self, tools: Tools) -> tuple[None, list[Points]]:
        document = _open(self.path, tools.max_pixels)
        return None, [document.points(index) for index in range(len(document))]


@dataclass(frozen=True)
class _Page:
    """Draws one page."""

    path: Path
    label: str
    index: int
    dpi: int
    colours: bool

    @property
    def name(self) -> str:
        return f"{self.path}/{self.label}"

    def run(self, tools: Tools) -> tuple[Gray, Extras | None]:
        page = _open(self.path, tools.max_pixels).render(self.index, self.dpi, self.colours)
        if not self.colours:
            return page, None
        from sketchify_rt.codec.extras import Extras

        return to_luma(page), Extras(colours=page)


def _open(path: Path, max_pixels: int) -> Pdf:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: no file can have this name
        return Pdf(path, max_pixels)  # raises an error with words
    return _opened(path, max_pixels, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(1)
def _opened(path: Path, max_pixels: int, version: tuple[int, ...]) -> Pdf:
    """Opens a file, and keeps it open for the next page."""
    return Pdf(path, max_pixels)
