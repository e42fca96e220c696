"""Paint whole binaries with the U-Net: tiles, U-Net, tiles back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sketchify_rt import tiling
from sketchify_rt.models import Manifest
from sketchify_rt.tiling import Tile

Image = Any
"""Luma where the backend works: uint8 (H, W), of NumPy on a CPU, of torch on a GPU."""

Images = Sequence[Image]

Planes = Any
"""Tiles or tones where the backend works: (N, H, W), of NumPy or torch."""


@dataclass(frozen=True)
class Runtime:
    """An opened U-Net, and how tiles should come to it, see `tiling.Rule`.

    Attributes:
        infer: Paints the tones of tiles. Takes their binaries, uint8 (N, H, W), 0 or 255, H and W
            multiples of the stride, and their hints, uint8 (N, H / 8, W / 8), None for a model
            that takes none. Returns floats (N, H, W) in 0..1.
        tile: The longest side that there is memory for; None for any.
        static, most_pixels, fixed, most_tiles: See `tiling.Rule`.
    """

    infer: Callable[[Planes, Planes | None], Planes]
    tile: int | None = None
    static: int | None = None
    most_pixels: int = 0
    fixed: bool = False
    most_tiles: int | None = None


class Canvas(Protocol):
    """What a device does with tiles."""

    def cut(self, images: Images, tiles: Sequence[Tile]) -> Planes:
        """Returns tiles of one shape of images, or of hints, as `Runtime.infer` takes them."""

    def empty_like(self, images: Images) -> Images:
        """Returns images of the same sizes, not yet written."""

    def compose(
        self, tones: Planes, tiles: Sequence[Tile], strength: float, threads: int, out: Images
    ) -> None:
        """Writes what is kept of the tones of tiles, inked `strength` times, to the images."""


@dataclass(frozen=True)
class Painter:
    """A U-Net with its tiles, on one device. Thread-safe.

    Attributes:
        runtime: The U-Net.
        canvas: Cuts and composes tiles.
        manifest: Of the model.
    """

    runtime: Runtime
    canvas: Canvas
    manifest: Manifest

    @property
    def min_tile(self) -> int:
        """Side of the smallest tile in pixels."""
        return tiling.min_tile(self.manifest.halo, self.manifest.stride)

    def paint(
        self, binaries: Images, planes: Images | None, strength: float, tile: int, threads: int
    ) -> Images:
        """Paints tones. The result does not depend on the tiles.

        Args:
            binaries: uint8 (H, W) each, 0 for ink and 255 for paper.
            planes: Hints, uint8 (ceil(H / 8), ceil(W / 8)) each; None for a model that takes none.
            strength: Factor of the ink, 0..4.
            tile: Longest side of a tile in pixels.
            threads: Of the processor.

        Returns:
            Sketches, uint8 (H, W) each.
        """
        runtime, manifest = self.runtime, self.manifest
        rule = tiling.Rule(
            min(tile, runtime.tile or tile),
            manifest.halo,
            manifest.stride,
            runtime.static,
            runtime.most_pixels,
            runtime.fixed,
            runtime.most_tiles,
        )
        sketches = self.canvas.empty_like(binaries)
        for tiles in tiling.plan([tuple(binary.shape) for binary in binaries], rule):
            cells = self.canvas.cut(planes, [tile.cells for tile in tiles]) if planes else None
            tones = runtime.infer(self.canvas.cut(binaries, tiles), cells)
            self.canvas.compose(tones, tiles, strength, threads, sketches)
        return sketches
