from __future__ import annotations

import itertools

import numpy as np
import pytest

from sketchify_rt.tiling import Rule, cut, grid, pad, padded, plan, spans

CASES = list(
    itertools.product(
        (1, 7, 8, 255, 256, 257, 300, 511, 512, 1000, 5000),  # length
        (256, 300, 1024),  # tile
        ((47, 8), (48, 16), (3, 1), (1, 32)),  # halo, stride
    )
)


@pytest.mark.parametrize("fit", [True, False])
@pytest.mark.parametrize(("length", "tile", "model"), CASES)
def test_tiles_cover_the_axis_with_halo_to_spare(
    length: int, tile: int, model: tuple[int, int], fit: bool
) -> None:
    halo, stride = model
    whole = padded(length, stride)
    found = spans(length, tile, halo, stride, fit)
    kept = [x for span in found for x in range(span.keep.start, span.keep.stop)]
    assert kept == list(range(length))
    for span in found:
        assert span.start % stride == 0
        assert span.start >= 0 and span.stop <= whole
        assert span.stop - span.start <= max(tile, stride)
        assert span.keep.start - span.start >= halo or span.start == 0
        assert span.stop - span.keep.stop >= halo or span.stop == whole
        assert span.inner.stop - span.inner.start == span.keep.stop - span.keep.start
    (size,) = {span.stop - span.start for span in found}
    if not fit and whole > tile:
        margin = padded(halo, stride)
        assert tile - stride < size <= tile and size % stride == 0 and size > 2 * margin


def test_a_little_over_one_tile_makes_two_halves_not_two_whole_ones() -> None:
    first, second = spans(1700, 1536, 47, 8)
    assert first.stop - first.start == second.stop - second.start == 904
    assert first.keep.stop == second.keep.start


def test_a_tile_that_is_all_halo_is_refused() -> None:
    with pytest.raises(ValueError, match="got 96"):
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


def test_images_of_rare_sizes_share_one_shape_and_common_ones_have_their_own() -> None:
    rare = [(1200, 800), (900, 1300), (512, 512), (3000, 2000)]
    rule = Rule(tile=1536, halo=47, stride=8, static=512, most_pixels=2**20)
    groups = list(plan(rare, rule))
    assert {tile.shape for tiles in groups for tile in tiles} == {(512, 512)}
    assert {len(tiles) for tiles in groups} <= {1, 2, 4}
    common = list(plan([(1400, 992)] * 4 + rare[:1], rule))
    assert [[tile.image for tile in tiles] for tiles in common[:4]] == [[0], [1], [2], [3]]
    assert common[0][0].shape == (1400, 992)
    assert {tile.image for tiles in common[4:] for tile in tiles} == {4}


def test_a_plan_covers_every_pixel_of_every_image_once() -> None:
    shapes = [(700, 530), (31, 17), (700, 530), (600, 1000), (8, 2000)]
    for static, most, fixed in ((None, 0, False), (256, 2**18, False), (256, 2**18, True)):
        seen = [np.zeros(shape, int) for shape in shapes]
        for tiles in plan(shapes, Rule(400, 47, 8, static, most, fixed)):
            (shape,) = {tile.shape for tile in tiles}
            assert len(tiles) == 1 or len(tiles) * shape[0] * shape[1] <= most
            assert len(tiles) & (len(tiles) - 1) == 0
            for tile in tiles:
                seen[tile.image][tile.row.keep, tile.column.keep] += 1
        assert all((image == 1).all() for image in seen)


def test_where_one_shape_is_taken_all_tiles_have_it() -> None:
    shapes = [(1400, 992)] * 4 + [(31, 17), (300, 900), (256, 256)]
    rule = Rule(1536, 47, 8, static=256, most_pixels=8 * 256**2, fixed=True)
    groups = list(plan(shapes, rule))
    assert {tile.shape for tiles in groups for tile in tiles} == {(256, 256)}
    assert {tile.image for tiles in groups for tile in tiles} == set(range(7))
    assert {len(tiles) for tiles in groups} <= {1, 2, 4, 8}
    (small,) = (tile for tiles in groups for tile in tiles if tile.image == 4)
    assert (small.row.keep, small.column.keep) == (slice(0, 31), slice(0, 17))


def test_no_more_tiles_go_together_than_are_taken() -> None:
    rule = Rule(1536, 47, 8, static=256, most_pixels=2**24, most_tiles=6)
    groups = list(plan([(1400, 992), (700, 530)], rule))
    assert max(len(tiles) for tiles in groups) == 4  # the power of two below
