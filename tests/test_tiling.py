from __future__ import annotations

import itertools

import numpy as np
import pytest

from sketchify_rt.tiling import cut, grid, pad, padded, spans

CASES = list(
    itertools.product(
        (1, 7, 8, 255, 256, 257, 300, 511, 512, 1000, 5000),  # length
        (256, 300, 1024),  # tile
        ((47, 8), (48, 16), (3, 1), (1, 32)),  # halo, stride
    )
)


@pytest.mark.parametrize(("length", "tile", "model"), CASES)
def test_tiles_cover_the_axis_with_halo_to_spare(
    length: int, tile: int, model: tuple[int, int]
) -> None:
    halo, stride = model
    whole = padded(length, stride)
    found = spans(length, tile, halo, stride)
    kept = [x for span in found for x in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length))
    for span in found:
        assert span.start % stride == 0
        assert span.start >= 0 and span.stop <= whole
        assert span.stop - span.start <= max(tile, stride)
        assert span.keep_start - span.start >= halo or span.start == 0
        assert span.stop - span.keep_stop >= halo or span.stop == whole
        assert span.inner.stop - span.inner.start == span.keep.stop - span.keep.start
    assert len({span.stop - span.start for span in found}) == 1


def test_a_little_over_one_tile_makes_two_halves_not_two_whole_ones() -> None:
    first, second = spans(1700, 1536, 47, 8)
    assert first.stop - first.start == second.stop - second.start == 904
    assert first.keep.stop == second.keep.start


def test_a_tile_that_is_all_halo_is_refused() -> None:
    with pytest.raises(ValueError, match="tile of 96 pixels"):
        spans(1000, 96, 47, 8)


def test_the_edge_is_repeated_beyond_the_image() -> None:
    image = np.arange(15, dtype=np.uint8).reshape(3, 5)
    ((row, column),) = grid(image.shape, 256, 4, 8)
    tile = cut(image, row, column)
    assert tile.shape == (8, 8)
    np.testing.assert_array_equal(pad(image, 8), tile)
    np.testing.assert_array_equal(tile[:3, :5], image)
    assert (tile[3:, :5] == image[-1]).all()
    np.testing.assert_array_equal(tile[:3, 5:], np.repeat(image[:, -1:], 3, axis=1))


def test_a_filter_of_known_reach_has_no_seam() -> None:
    # A box sum over +-9 pixels, the borders padded with nothing, as a convolution's are.
    def box(image: np.ndarray) -> np.ndarray:
        wide = np.pad(image.astype(np.int64), 9)
        rows = sum(wide[i : i + image.shape[0]] for i in range(19))
        return np.asarray(sum(rows[:, i : i + image.shape[1]] for i in range(19)))

    image = np.random.default_rng(0).integers(0, 256, (531, 290), dtype=np.uint8)
    ((row, column),) = grid(image.shape, 4096, 9, 8)
    whole = box(cut(image, row, column))[:531, :290]
    stitched = np.full(image.shape, -1, np.int64)
    for row, column in grid(image.shape, 64, 9, 8):
        stitched[row.keep, column.keep] = box(cut(image, row, column))[row.inner, column.inner]
    np.testing.assert_array_equal(stitched, whole)
