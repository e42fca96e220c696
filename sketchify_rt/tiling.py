"""Cut a large image into overlapping tiles whose results fit together without a seam.

Each tile gives only the part whose receptive field lies within it, or ends at the image's own edge,
so the parts are what the whole image at once would have given.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sketchify_rt.image import CELL, Gray


class Span(NamedTuple):
    """One tile along one axis, in pixels.

    Attributes:
        start, stop: What the model reads of the image; `stop` may lie beyond its end.
        keep: The part of it that is kept, in the image.
        inner: The same part, within the tile.
    """

    start: int
    stop: int
    keep: slice
    inner: slice


class Tile(NamedTuple):
    """One tile of one of several images.

    Attributes:
        image: Index of the image.
        row, column: The tile along each axis.
    """

    image: int
    row: Span
    column: Span

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what the model reads."""
        return self.row.stop - self.row.start, self.column.stop - self.column.start

    @property
    def cells(self) -> Tile:
        """The same tile of the image's hint. Tiles begin and end with a cell."""
        row, column = self.row, self.column
        rows = row._replace(start=row.start // CELL, stop=row.stop // CELL)
        return Tile(
            self.image, rows, column._replace(start=column.start // CELL, stop=column.stop // CELL)
        )


@dataclass(frozen=True)
class Rule:
    """How images are cut, and which tiles go through the model together.

    Attributes:
        tile: Longest side of a tile in pixels.
        halo, stride: Of the model, in pixels.
        static: Side of all tiles of images of rare sizes that are longer; None treats all sizes
            alike. A device that prepares itself for each shape should meet few shapes.
        most_pixels: Of the tiles that go together, unless one tile alone has more.
        fixed: All tiles are `static` square. The tile of a shorter axis reaches into padding.
        most_tiles: Tiles that go together; None for any number.
    """

    tile: int
    halo: int
    stride: int
    static: int | None = None
    most_pixels: int = 0
    fixed: bool = False
    most_tiles: int | None = None


_STATIC = 512  # pixels

# Images of one size among those converted together, from which on shapes of their own pay.
_COMMON = 4


def plan(shapes: Sequence[tuple[int, int]], rule: Rule) -> Iterator[list[Tile]]:
    """Yields the tiles of images of these shapes (H, W), in groups of equal shape.

    A group has a power of two of tiles, so that few pairs of number and shape exist.
    """
    counts = Counter(shapes)
    groups: defaultdict[tuple[int, int], list[Tile]] = defaultdict(list)
    for image, shape in enumerate(shapes):
        static = rule.static if rule.fixed or counts[shape] < _COMMON else None
        size, least = static or rule.tile, static if static and rule.fixed else 0
        for row, column in grid(shape, size, rule.halo, rule.stride, not static, least):
            key = row.stop - row.start, column.stop - column.start
            groups[key].append(Tile(image, row, column))
    for (height, width), tiles in groups.items():
        most = max(1, rule.most_pixels // (height * width))
        most = min(most, rule.most_tiles or most)
        start = 0
        while start < len(tiles):
            count = 1 << (min(most, len(tiles) - start).bit_length() - 1)
            yield tiles[start : start + count]
            start += count


def static_side(halo: int, stride: int) -> int:
    """Returns the side of tiles for a device that wants one shape: 512, or more for a wide halo.

    At least three quarters of an axis are not halo.
    """
    return max(padded(_STATIC, stride), 8 * padded(halo, stride))


def min_tile(halo: int, stride: int) -> int:
    """Returns the side of the smallest tile that is not all halo, in pixels."""
    return 2 * padded(halo, stride) + stride


def padded(length: int, stride: int) -> int:
    """Returns `length` rounded up to a multiple of `stride`."""
    return -(-length // stride) * stride


def spans(
    length: int, tile: int, halo: int, stride: int, fit: bool = True, least: int = 0
) -> list[Span]:
    """Covers an axis with the fewest tiles of equal size.

    The tiles end with the axis rounded up to the stride, so the last one may reach into padding.
    All start at a multiple of the stride, because pooling tells such positions apart. Neighbours
    overlap by at least twice the halo, rounded up to the stride.

    Args:
        length: Pixels of the axis, at least 1.
        tile: Most pixels of a tile.
        halo, stride: Of the model, in pixels.
        fit: Make the tiles of a longer axis as short as their number allows, not `tile` long.
        least: Least pixels of the one tile of a shorter axis.

    Raises:
        ValueError: A tile is all halo.
    """
    whole = padded(length, stride)
    if whole <= tile:
        return [Span(0, max(whole, least), slice(0, length), slice(0, length))]
    margin = padded(halo, stride)
    step = tile // stride * stride - 2 * margin
    if step <= 0:
        raise ValueError(f"tile must be larger than its halo of 2 x {margin} pixels, got {tile}")
    count = -(-(whole - 2 * margin) // step)
    if fit:
        step = padded(-(-(whole - 2 * margin) // count), stride)
    size = step + 2 * margin
    starts = [*range(0, whole - size, step), whole - size]
    # Each part begins where the one before ends: `margin` before the end of its tile.
    edges = [0, *(start + size - margin for start in starts[:-1]), length]
    return [
        Span(start, start + size, slice(first, last), slice(first - start, last - start))
        for start, first, last in zip(starts, edges, edges[1:], strict=False)
    ]


def grid(
    shape: tuple[int, int], tile: int, halo: int, stride: int, fit: bool = True, least: int = 0
) -> list[tuple[Span, Span]]:
    """Returns the tiles of an image (H, W), row by row: pairs of its rows and columns."""
    rows = spans(shape[0], tile, halo, stride, fit, least)
    columns = spans(shape[1], tile, halo, stride, fit, least)
    return list(itertools.product(rows, columns))


def cut(image: Gray, row: Span, column: Span) -> Gray:
    """Returns the pixels of one tile; beyond the image its last row and column are repeated."""
    height, width = image.shape
    tile = image[row.start : min(row.stop, height), column.start : min(column.stop, width)]
    below, right = row.stop - row.start - tile.shape[0], column.stop - column.start - tile.shape[1]
    return np.pad(tile, ((0, below), (0, right)), mode="edge") if below or right else tile


def pad(image: Gray, stride: int) -> Gray:
    """Returns the whole image as one tile: its edge is repeated up to a multiple of `stride`."""
    down, right = (padded(side, stride) - side for side in image.shape)
    return np.pad(image, ((0, down), (0, right)), mode="edge")
