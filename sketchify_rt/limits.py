"""What fits into a device's memory, as batches show that fail or succeed."""

from __future__ import annotations

import logging

from sketchify_rt import forks

log = logging.getLogger("sketchify_rt")

# Batches that must succeed before more is tried: others may have had the memory for a moment only.
# Each failure doubles it, so that a limit that stays costs less and less.
_PATIENCE = 8


class Limits:
    """Pixels of the images that go together, and the side of a tile. Thread-safe.

    Attributes:
        pixels: Of the images that go together, unless one alone has more; None for any.
        tile: Longest side of a tile in pixels.
    """

    def __init__(self, device: str, pixels: int | None, tile: int) -> None:
        """Sets the most that is ever tried.

        Args:
            device: For messages.
            pixels: Of images that go together; None for any.
            tile: Side in pixels.
        """
        self.pixels, self.tile = pixels, tile
        self._device = device
        self._max_pixels = pixels
        self._succeeded, self._patience = 0, _PATIENCE
        self._lock = forks.Lock()

    def batch_failed(self, pixels: int) -> None:
        """Halves the pixels that go together, after a batch of so many did not fit."""
        with self._lock:
            half = max(1, pixels // 2)
            if self.pixels is not None and half >= self.pixels:
                return  # another thread has
            first = self._patience == _PATIENCE
            self.pixels, self._succeeded, self._patience = half, 0, 2 * self._patience
            log.log(
                logging.WARNING if first else logging.INFO,
                "%s is out of memory: going on with %.3g megapixels at a time",
                self._device,
                half / 1e6,
            )

    def batch_succeeded(self) -> None:
        """Doubles the pixels again, up to what there was, after some batches that fit."""
        if self.pixels == self._max_pixels:
            return
        with self._lock:
            if self.pixels == self._max_pixels or self.pixels is None:
                return
            self._succeeded += 1
            if self._succeeded >= self._patience:
                self._succeeded = 0
                double = 2 * self.pixels
                limited = self._max_pixels is not None and double > self._max_pixels
                self.pixels = self._max_pixels if limited else double

    def tile_failed(self, tile: int, min_tile: int) -> bool:
        """Halves the side of tiles for good, unless another thread has.

        Args:
            tile: The side that did not fit.
            min_tile: The smallest side that the model allows.

        Returns:
            Whether tiles are smaller than that now.
        """
        with self._lock:
            if self.tile == tile and (half := max(min_tile, tile // 2)) < tile:
                self.tile = half
                log.warning("%s is out of memory: going on with tiles of %d", self._device, half)
            return self.tile < tile
