"""Draws pages of PDF files in the processes of `decoders`, which may hang or crash."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch import pdf
from sketchify_rt.batch.pdf import Pdf, Points
from sketchify_rt.image import Gray
from sketchify_rt.options import MAX_PIXELS

if TYPE_CHECKING:
    from sketchify_rt.batch.decode_worker import Tools
    from sketchify_rt.batch.decoders import Decoders


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

    def render(self, index: int, dpi: int = 200) -> Gray:
        """Draws a page, see `Pdf.render`. Raises what that and `Decoders.decode` raise."""
        luma, _ = self._decoders.run(_Page(self.path, self.label(index), index, dpi))
        assert luma is not None  # noqa: S101 (the job gives luma)
        return luma


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

    @property
    def name(self) -> str:
        return f"{self.path}/{self.label}"

    def run(self, tools: Tools) -> tuple[Gray, None]:
        return _open(self.path, tools.max_pixels).render(self.index, self.dpi), None


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
