"""Limits the memory of all images in progress together, so that large images wait."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.errors import OverMemory
from sketchify_rt.options import Encoding, Painted

if TYPE_CHECKING:
    from sketchify_rt.codec.formats import Header
    from sketchify_rt.inputs import Loaded

MIB = 2**20
DRAWN = 4
"""Bytes of a pixel while a page is drawn: three of colour, one of luma."""

# What is less of the whole is read without waiting, by all threads at once.
_SMALL = 1 / 256

_UNKNOWN_MEMORY = 8 << 30  # bytes, taken for the machine's where the system does not tell


class Budget:
    """Bytes for all images in progress; each takes what `needed` returns. Thread-safe."""

    def __init__(self, size: int = sys.maxsize, max_pixels: int | None = None) -> None:
        """Of `size` bytes. max_pixels: images of more are refused by whoever decodes them."""
        self.size, self._max_pixels = size, max_pixels
        self._free = size
        self._freed = threading.Condition()
        self._turn = threading.Lock()

    def check(self, name: object, need: int) -> int:
        """`need`; raises OverMemory where what is called so needs more than there is."""
        if need > self.size:
            raise OverMemory(
                f"{name}: needs about {need / MIB:.0f} MiB of memory, and the limit for all images "
                f"together is {self.size / MIB:.0f} MiB. Raise --memory"
            )
        return need

    def needed(self, image: Loaded, encoding: Encoding) -> int:
        """See `needed`."""
        return needed(image, encoding, self._max_pixels)

    @contextlib.contextmanager
    def hold(self, size: int, read: Callable[[], int], known: bool = False) -> Iterator[None]:
        """Has `read` bring `size` bytes into memory, and keeps as many as it says that they need.

        Waits for room before that, and after it for the rest; where they need more than there is,
        until there is nothing else. known: `size` is all that they need.
        """
        held, need, read_later = 0, None, False
        if size <= self.size * _SMALL:
            need = read()
        try:
            # One waits for room, and all others for that one: else small images would pass a large
            # one by for as long as there are any, and two that are half read wait for each other.
            with self._turn:
                if need is None:
                    held = self._take(min(size, self.size))
                    need = size if known else read()
                    read_later = known
                held += self._take(min(need, self.size) - held)
            if read_later:  # nobody waits for that, as a page may take long to draw
                read()
            yield
        finally:
            self._take(-held)

    def _take(self, count: int) -> int:
        with self._freed:
            self._freed.wait_for(lambda: self._free >= count)
            self._free -= count
            self._freed.notify_all()
        return count


def needed(image: Loaded, encoding: Encoding, max_pixels: int | None = None) -> int:
    """Bytes at most to convert the image on a CPU, without the U-Net's tiles.

    A file counts its own bytes, and no more than these where its header is damaged or tells of
    more than `max_pixels`.
    """
    from sketchify_rt import inputs  # with NumPy, which --help does without

    if isinstance(image, inputs.File):
        size, pixels, kind = len(image.data), image.header.pixels, _kind(image.header)
        if max_pixels is not None and pixels > max_pixels:
            pixels = 0
    else:
        luma = image.luma if isinstance(image, inputs.Picture) else image
        size, pixels, kind = 0, int(getattr(luma, "size", 0)), "luma"
    hint = getattr(image, "hint", None)
    if isinstance(hint, Painted):
        size += 2 * len(hint.levels)  # and where it is painted, as it is reduced to cells
    return size + per_pixel(kind, encoding) * pixels


def _kind(header: Header) -> str:
    """A key of PER_PIXEL."""
    special = {
        "JPEG": " without end" if not header.ended else " of CMYK" if header.channels == 4 else "",
        "PNG": (deep := " of 16 bits" if header.bits == 16 and header.channels > 1 else ""),
        "TIFF": " of 16 bits" if header.unknown else deep,
        "PSD": " of 16 bits" if header.bits == 16 else "",
        "PNM": " as text" if header.text else "",
    }
    form = header.format or ""
    return form + special.get(form, "") if header.pixels else "luma"


def per_pixel(kind: str, encoding: Encoding) -> int:
    """Bytes for each pixel of a file of this kind, a key of PER_PIXEL."""
    alpha = 0 if encoding.alpha == "white" else ALPHA
    if encoding.alpha == "lines" and encoding.quality is not None:
        alpha = LOSSY_LINES
    return max(PER_PIXEL[kind], ENCODED[encoding.format]) + alpha


# Bytes for each pixel of the file, from its bytes to those of the sketch: peak memory beyond that
# of a warm process that holds the file. Measured with noise, which compresses worst, of 20
# megapixels, where nothing else is said, to PNG; the greatest of its kinds, rounded up.
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
# The same where encoding needs more than decoding, which is over by then: JPEG of quality 100 5.3,
# lossless WebP 30.8 to 32.2, other WebP 20.2.
ENCODED = {"png": 0, "jpg": 6, "webp": 33}
# More, with alpha: kept in PNG 4.7, in WebP 6.4; lines in PNG 5.3, in lossless WebP 4.2.
ALPHA = 7
LOSSY_LINES = 13  # 12.1


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


def total_memory() -> int:
    """Returns the bytes of memory of the machine, or the limit of its container."""
    if not hasattr(os, "sysconf"):
        return _UNKNOWN_MEMORY
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(machine, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return machine
