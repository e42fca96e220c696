"""The memory that images in work may have together, so that many large ones do not meet."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.errors import DecodeError

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded

MIB = 2**20


class Budget:
    """Bytes that images in work share, each as many as `needed` says. Thread-safe."""

    def __init__(self, size: int) -> None:
        """Of `size` bytes."""
        self.size = size
        self._free = size
        self._freed = threading.Condition()

    def check(self, image: Loaded) -> None:
        """Raises DecodeError where the image alone needs more than there is."""
        need = needed(image)
        if need > self.size:
            raise DecodeError(
                getattr(image, "name", "<image>"),
                f"needs some {need / MIB:.0f} MiB of memory, and images may have "
                f"{self.size / MIB:.0f} together; raise --memory",
            )

    @contextmanager
    def hold(self, images: Sequence[Loaded]) -> Iterator[None]:
        """Waits until there is room for all of them, or, where they need more, for nothing else."""
        need = min(sum(map(needed, images)), self.size)
        with self._freed:
            self._freed.wait_for(lambda: self._free >= need)
            self._free -= need
        try:
            yield
        finally:
            with self._freed:
                self._free += need
                self._freed.notify_all()


def needed(image: Loaded) -> int:
    """Bytes at most to convert the image on a CPU, without the U-Net's tiles; see `PER_PIXEL`."""
    from sketchify_rt import inputs  # with NumPy, which --help does without
    from sketchify_rt.codec import containers

    if isinstance(image, inputs.File):
        form = containers.identify(image.data) or ""
        return len(image.data) + containers.pixels(image.data) * PER_PIXEL.get(form, MOST)
    pixels = image.luma if isinstance(image, inputs.Picture) else image
    return GRAY * int(getattr(pixels, "size", 0))


# Of the file's pixels, from first byte to encoded sketch: peak memory beyond that of an empty
# process, measured with 40 and 100 megapixels of noise (which compresses worst) in each kind of
# samples that the format holds, the greatest of them, rounded up.
PER_PIXEL = {"JPEG": 8, "PNG": 16, "WebP": 10, "PNM": 16}
MOST = 16
GRAY = 6


def total_memory() -> int:
    """Bytes that this process may use: the machine's, or fewer where its container has a limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(machine, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return machine
