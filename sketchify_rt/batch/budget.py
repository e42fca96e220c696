"""Limits the memory of all images in progress together, so that large images wait."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt import cgroups
from sketchify_rt.errors import OverMemory
from sketchify_rt.options import Encoding, Painted

if TYPE_CHECKING:
    from sketchify_rt.codec.formats import Header
    from sketchify_rt.inputs import Loaded

MIB = 2**20
DRAWN = 4
"""Bytes for each pixel while a page is drawn: three of colour, one of luma."""

# All threads read files of less than this share of the budget at once, without waiting.
_SMALL = 1 / 256

_UNKNOWN_MEMORY = 8 << 30  # bytes, for systems that do not tell how much memory they have

# Above memory.max the kernel ends a process. Above memory.high it slows the process down, so much
# that waiting for memory is faster. The third is the memory.max of version 1.
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")


class Budget:
    """A number of bytes that all images in progress share. Thread-safe.

    Attributes:
        size: The number of bytes.
        colours: Whether sketches have the colours of their images.
    """

    def __init__(
        self, size: int = sys.maxsize, max_pixels: int | None = None, colours: bool = False
    ) -> None:
        """Makes a budget.

        Args:
            size: Number of bytes.
            max_pixels: Maximum number of pixels of an image. The decoder refuses larger images, so
                they need no memory for their pixels. None for no maximum.
            colours: Whether sketches have the colours of their images.
        """
        self.size, self._max_pixels, self.colours = size, max_pixels, colours
        self._free = size
        self._freed = threading.Condition()
        self._turn = threading.Lock()

    def check(self, name: object, need: int) -> int:
        """Checks that an image fits into the budget.

        Args:
            name: Name of the image, for the message.
            need: Bytes that it needs.

        Returns:
            `need`.

        Raises:
            OverMemory: It needs more than the whole budget.
        """
        if need > self.size:
            raise OverMemory(
                f"{name}: needs about {need / MIB:.0f} MiB of memory, and the limit for all images "
                f"together is {self.size / MIB:.0f} MiB. Raise --memory"
            )
        return need

    def needed(self, image: Loaded, encoding: Encoding) -> int:
        """Calls the function `needed` with the maximum number of pixels of this budget."""
        return needed(image, encoding, self._max_pixels, self.colours)

    @contextlib.contextmanager
    def hold(self, size: int, read: Callable[[], int], known: bool = False) -> Iterator[None]:
        """Reads images when there is room for them, and takes what they need while they are used.

        Images that need more than the whole budget wait until no others are in progress.

        Args:
            size: Bytes that `read` brings into memory.
            read: Reads the images, and returns the bytes that they need in all.
            known: Whether `size` is all that the images need.
        """
        small = size <= self.size * _SMALL
        need = read() if small else size
        held = 0
        try:
            # Only one thread waits for room, and the others wait for their turn. Otherwise small
            # images would overtake a large one for as long as there are any, and two threads with
            # half of what they need would wait for each other.
            with self._turn:
                held = self._resize(held, need)
                if not small and not known:
                    held = self._resize(held, read())
            if not small and known:
                read()  # after the turn: to draw a page of a PDF may take long
            yield
        finally:
            self._resize(held, 0)

    def _resize(self, held: int, size: int) -> int:
        """Waits until `size` bytes, or the whole budget, can be held instead of `held`."""
        size = min(size, self.size)
        with self._freed:
            self._freed.wait_for(lambda: self._free + held >= size)
            self._free += held - size
            self._freed.notify_all()
        return size


def needed(
    image: Loaded, encoding: Encoding, max_pixels: int | None = None, colours: bool = False
) -> int:
    """Returns the most memory that it takes to convert an image on a CPU, without the U-Net.

    Args:
        image: A file or a picture.
        encoding: Encoding of the sketch.
        max_pixels: Maximum number of pixels of an image; None for no maximum.
        colours: Whether the sketch has the colours of the image.

    Returns:
        Number of bytes. For a file with a damaged header, or with more pixels than the maximum, it
        is the size of the file, because no decoder will read it.
    """
    from sketchify_rt import inputs  # with NumPy, which --help does without

    if isinstance(image, inputs.File):
        size, pixels, kind = len(image.data), image.header.pixels, _kind(image.header)
        if max_pixels is not None and pixels > max_pixels:
            pixels = 0
    else:
        luma = image.luma if isinstance(image, inputs.Picture) else image
        size, pixels, kind = 0, math.prod(getattr(luma, "shape", (0, 0))[:2]), "luma"
    hint = getattr(image, "hint", None)
    if isinstance(hint, Painted):
        size += 2 * len(hint.levels)  # the levels, and a mask of where there are any
    return size + per_pixel(kind, encoding, colours) * pixels


def _kind(header: Header) -> str:
    """Returns the kind of a file, a key of `PER_PIXEL`."""
    deep = header.bits == 16 and header.channels > 1
    special = {
        "JPEG": " without end" if not header.ended else " of CMYK" if header.channels == 4 else "",
        "PNG": " of 16 bits" if deep else "",
        "TIFF": " of 16 bits" if deep or header.unknown else "",
        "PSD": " of 16 bits" if header.bits == 16 else "",
        "PNM": " as text" if header.text else "",
    }
    form = header.format or ""
    return form + special.get(form, "") if header.pixels else "luma"


def per_pixel(kind: str, encoding: Encoding, colours: bool = False) -> int:
    """Returns the bytes of memory for each pixel of an image.

    Args:
        kind: Kind of its file, a key of `PER_PIXEL`.
        encoding: Encoding of the sketch.
        colours: Whether the sketch has the colours of the image.
    """
    alpha = 0 if encoding.alpha == "white" else ALPHA
    if encoding.alpha == "lines" and encoding.quality is not None:
        alpha = LOSSY_LINES
    more = alpha + (COLOURS if colours else 0)
    return max(PER_PIXEL[kind], ENCODED[encoding.format]) + more


# Bytes for each pixel of an image, by the kind of its file. Measured is how far the peak memory is
# above that of a process which has converted other images and holds this file. The images are noise
# of 20 megapixels, if no other size is given; noise compresses worst. They are converted to PNG.
# The comments give what was measured. Each entry is the largest value, rounded up.
PER_PIXEL = {
    "JPEG": 8,  # 2.7 to 3.9; progressive 3.5, with chroma in full 7.0
    "JPEG of CMYK": 12,  # 4.4; progressive 11.4
    "JPEG without end": 16,  # decoded in colour: 6.5; progressive 12.1, of CMYK 15.4
    "PNG": 7,  # up to 8 bits 2.9 to 5.2, turned 6.1; gray of 16 bits 2.7
    "PNG of 16 bits": 20,  # colour 15.4; with alpha 19.4, of 100 megapixels 19.9
    "WebP": 9,  # 6.0 to 8.0, of 100 megapixels the same
    "BMP": 6,  # 5.1
    "GIF": 5,  # 3.9
    "TIFF": 7,  # 5.1, 5.2; planes 5.4, of 100 megapixels 5.9; gray of 16 bits 2.7
    "TIFF of 16 bits": 16,  # colour 12.0; with alpha 16.0; BigTIFF of OpenCV 10.1, 12.1
    "AVIF": 12,  # 8.6; with alpha 11.4
    "HEIC": 14,  # 8.7; with alpha 9.5, of 10 bits 13.0
    "JPEG XL": 10,  # 7.3; with alpha 8.3
    "PSD": 9,  # 3.2 to 7.0; with alpha 8.2
    "PSD of 16 bits": 17,  # 3.2 to 8.0; with alpha 16.3
    "PNM": 4,  # 3.9
    "PNM as text": 41,  # 40.7, of 5 megapixels
    "luma": 4,  # pixels, or a picture decoded elsewhere: 2.9, and 1 of its own
}
# The same for encoding, which begins when decoding has ended: the larger of the two counts. JPEG of
# quality 100 5.3, lossless WebP 30.8 to 32.2, other WebP 20.2.
ENCODED = {"png": 0, "jpg": 6, "webp": 33}
# Added for a sketch with transparency. Kept in PNG 4.7, in WebP 6.4; lines in PNG 5.3, in lossless
# WebP 4.2.
ALPHA = 7
LOSSY_LINES = 13  # the same for lines in lossy WebP: 12.1
# Added for look color, as pages of PDF files need most: 10.2 in PNG, and 3 of their own. JPEG 9.8,
# PNG 9.7, of CMYK 14.6, pixels in gray 11.8; PNG to JPEG 11.0, to lossy WebP 11.1.
COLOURS = 10


def return_large_blocks() -> None:
    """Makes this process return freed blocks of 8 MiB and more to the system at once.

    By default glibc may keep up to 64 MiB of them for each thread, beyond the budget: with
    `--memory 600` and two threads the peak of 13 large images was 711 MiB above that of small
    images. With this setting it is 552 MiB, at the same speed. Other C libraries return the blocks
    anyway, or have no such setting.
    """
    trim_threshold, mmap_threshold, size = -1, -3, 8 * MIB  # malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, size)
        library.mallopt(trim_threshold, 2 * size)


def total_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of memory that this process may use.

    This is the memory of the machine, or the least limit of the control groups of this process.

    Args:
        root: Where /proc and /sys are; for tests.
    """
    limits = [_UNKNOWN_MEMORY]
    if hasattr(os, "sysconf"):
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in cgroups.folders("memory", root):
        for name in _LIMITS:
            with contextlib.suppress(ValueError):  # "max", or there is no such file
                limits.append(int(cgroups.text(group / name)))
    return min(limits)
