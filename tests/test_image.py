from __future__ import annotations

import numpy as np
import pytest
from conftest import needs

from sketchify_rt.errors import InputError
from sketchify_rt.image import bands, enlarge, fit, orient, resize, to_luma
from sketchify_rt.kernels import reference

RNG = np.random.default_rng(7)

# To resize from and to: odd, thin, tiny, with one axis enlarged, and too long for one product.
SIZES = [
    ((40, 60), (20, 30)),
    ((41, 67), (13, 64)),
    ((100, 7), (99, 1)),
    ((5000, 1), (10, 1)),
    ((20, 30), (77, 61)),
    ((20, 30), (10, 45)),
    ((1, 1), (5, 5)),
    ((1, 2), (1, 1)),
    ((2, 3), (1, 2)),
    ((9, 9), (1, 9)),
    ((3, 500), (1, 200)),
    ((300, 500), (256, 256)),
    ((9000, 30), (4000, 30)),
    ((1, 30_000), (1, 2000)),
]


def luma_of(rgb: np.ndarray) -> np.ndarray:
    """OpenCV's integer formula: weights of 15 bits that sum to 32,768."""
    return ((rgb.astype(np.int64) @ [9798, 19235, 3735] + 16384) >> 15).astype(np.uint8)


def test_gray_is_taken_as_it_is() -> None:
    gray = RNG.integers(0, 256, (5, 7), np.uint8)
    assert np.shares_memory(to_luma(gray), gray)
    np.testing.assert_array_equal(to_luma(gray[..., None]), gray)
    turned = to_luma(gray.T)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, gray.T)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 70_000, 3), (300, 517, 3), (70_000, 1, 3)])
def test_rgb(shape: tuple[int, int, int]) -> None:
    rgb = RNG.integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(to_luma(rgb), luma_of(rgb))
    np.testing.assert_array_equal(to_luma(rgb[:, ::-1]), luma_of(rgb)[:, ::-1])


def test_rgba_is_composited_on_white() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour[::-1], 255 - colour, alpha], axis=-1).astype(np.uint8)
    rgb, a = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    on_white = np.floor(rgb * a + 255 * (1 - a) + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(to_luma(rgba), luma_of(on_white))


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        ([[1, 2]], "list"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), "at least one pixel"),
        (np.zeros((4, 0, 3), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_refused(array: np.ndarray, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        to_luma(array)


# Where the pixels 1 2 3 / 4 5 6 stand once upright, after the eight pictures of the EXIF standard.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", [0, *UPRIGHT, 9])
def test_orient(orientation: int) -> None:
    stored = np.array(UPRIGHT[1], np.uint8)
    upright = orient(stored, orientation)
    assert upright.flags.c_contiguous
    assert upright.tolist() == UPRIGHT.get(orientation, UPRIGHT[1])


def test_fit_keeps_the_aspect_and_a_pixel_and_never_enlarges() -> None:
    whole = [
        ((1, 5000), 10, (1, 10)),
        ((5000, 1), 10, (10, 1)),
        ((3, 3), 1, (1, 1)),
        ((7, 9), 9, (7, 9)),
        ((40, 60), 30, (20, 30)),
        ((40, 60), None, (40, 60)),
    ]
    for (height, width), side, size in whole:
        assert fit((height, width), side, None) == (slice(height), slice(width), *size)


def test_fit_takes_the_middle_square_of_a_landscape_and_the_top_of_a_portrait() -> None:
    assert fit((6, 11), None, 4) == (slice(6), slice(2, 8), 4, 4)
    assert fit((11, 6), None, 12) == (slice(6), slice(0, 6), 12, 12)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resize_is_the_references_within_one(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    gray = RNG.integers(0, 256, source, np.uint8)
    resized = resize(gray, *target)
    assert resized.dtype == np.uint8 and resized.shape == target
    assert resized.flags.c_contiguous and resized.flags.writeable
    difference = resized.astype(int) - reference.resize(gray, *target)
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resize_is_dalis_within_one(source: tuple[int, int], target: tuple[int, int]) -> None:
    needs("nvidia.dali")
    import nvidia.dali.experimental.dynamic as dali

    gray = RNG.integers(0, 256, source, np.uint8)
    there = dali.resize(dali.as_tensor(gray[..., None], layout="HWC"), size=target, antialias=True)
    expected = np.asarray(there.evaluate())[..., 0].astype(int)
    for resized in resize(gray, *target), reference.resize(gray, *target):
        assert np.abs(resized - expected).max() <= 1


def test_the_reference_is_a_triangle_with_the_edge_repeated() -> None:
    row = np.array([[0, 80, 160, 0, 0, 240]], np.uint8)
    assert reference.resize(row, 1, 3).tolist() == [[50, 70, 120]]  # weights 1 3 3 1, over 8
    assert reference.resize(row.T, 2, 1).tolist() == [[62], [98]]  # 1 2 3 2 1, over 9
    assert reference.resize(row[:, :2], 1, 4).tolist() == [[0, 20, 60, 80]]


def test_resize_keeps_what_is_even_and_cuts_bands_without_seams() -> None:
    assert (resize(np.full((5000, 1), 77, np.uint8), 10, 1) == 77).all()
    gray = RNG.integers(0, 256, (1500, 1100), np.uint8)  # two bands
    assert len(list(bands(gray.shape, 2**20))) == 2
    parts = [resize(gray[:, left : left + 550], 1500, 275) for left in (0, 550)]
    whole = resize(gray, 1500, 550)
    np.testing.assert_array_equal(whole[:, 1:274], parts[0][:, 1:274])
    np.testing.assert_array_equal(whole[:, 276:-1], parts[1][:, 1:-1])


def bicubic(gray: np.ndarray, height: int, width: int) -> np.ndarray:
    """Keys 1981 with a = -0.75, edges repeated; float64."""

    def along(values: np.ndarray, target: int) -> np.ndarray:
        source = values.shape[1]
        centres = (np.arange(target) + 0.5) * source / target - 0.5
        near = np.floor(centres).astype(int) + np.arange(-1, 3)[:, None]
        x, a = np.abs(near - centres), -0.75
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        weights = np.where(x <= 1, inner, (((x - 5) * x + 8) * x - 4) * a)
        return np.asarray((weights * values[:, near.clip(0, source - 1)]).sum(1))

    return along(along(gray.astype(float), width).T, height).T.clip(0, 255)


ENLARGED = [
    ((20, 30), (77, 61)),
    ((41, 67), (41, 80)),
    ((1, 1), (5, 5)),
    ((3, 500), (7, 700)),
    ((1, 40_000), (1, 70_000)),
    ((64, 43), (200, 133)),
]


@pytest.mark.parametrize(("source", "target"), ENLARGED)
def test_enlarge_is_bicubic(source: tuple[int, int], target: tuple[int, int]) -> None:
    # Half a level is rounding; the rest are the 11 bits of OpenCV's weights.
    for gray in RNG.integers(0, 256, source, np.uint8), np.full(source, 255, np.uint8):
        enlarged = enlarge(gray, *target)
        assert enlarged.dtype == np.uint8 and enlarged.flags.c_contiguous
        assert np.abs(enlarged - bicubic(gray, *target)).max() <= 1.5
    assert (enlarged == 255).all()  # paper stays white


@pytest.mark.parametrize("shape", [(1, 1), (1, 200_000), (200_000, 1), (777, 333, 3)])
def test_bands_cover_every_row_once(shape: tuple[int, ...]) -> None:
    rows = np.zeros(shape[0], int)
    for band in bands(shape):
        rows[band] += 1
    assert (rows == 1).all()
