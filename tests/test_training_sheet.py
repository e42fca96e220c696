from __future__ import annotations

import numpy as np
import pytest

from sketchify_rt.kernels import native
from training.sheet import Shown, best_median_worst, sheet, strip

CELL, GAP, LINE = 320, 4, 24  # of the sheet, in pixels
PAGE, BINARY, SKETCH, TARGET, DIFFERENCE = (GAP + i * (CELL + GAP) for i in range(5))


def test_a_strip_has_a_row_for_each_crop() -> None:
    binary = np.arange(60, dtype=np.uint8).reshape(2, 5, 6)
    picture = strip(binary, binary + 60, binary + 120)
    assert picture.shape == (18, 30)
    for crop in range(2):
        for column in range(3):
            cell = picture[9 * crop : 9 * crop + 9, 10 * column : 10 * column + 10]
            np.testing.assert_array_equal(cell[:5, :6], binary[crop] + 60 * column)
            assert (cell[5:] == 128).all()
            assert (cell[:, 6:] == 128).all()


@pytest.mark.parametrize(
    ("ssim", "places"),
    [([0.3, 0.9, 0.5, 0.1, 0.7], (1, 2, 3)), ([0.2, 0.1], (0, 0, 1)), ([0.4], (0, 0, 0))],
)
def test_best_median_and_worst(ssim: list[float], places: tuple[int, int, int]) -> None:
    chosen = best_median_worst(ssim)
    assert list(chosen) == ["best", "median", "worst"]
    assert tuple(chosen.values()) == places


def test_a_small_page_is_shown_as_it_is() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (100, 80), np.uint8)
    target = native.dodge(gray)
    sketch = target.copy()
    pale, dark = (np.argwhere(where)[0] for where in (target == 255, target < 100))
    sketch[tuple(pale)], sketch[tuple(dark)] = 0, 255
    picture = np.asarray(sheet("title", [Shown("caption", gray, sketch)]))
    assert picture.shape == (LINE + 2 * LINE + 100 + GAP + LINE, 5 * (CELL + GAP) + GAP, 3)
    of = {left: picture[3 * LINE : 3 * LINE + 100, left : left + 80] for left in
          (PAGE, BINARY, SKETCH, TARGET, DIFFERENCE)}  # fmt: skip
    binary = native.binarize(gray)
    shown = {PAGE: gray, BINARY: binary, SKETCH: sketch, TARGET: target}
    for left, expected in shown.items():
        np.testing.assert_array_equal(of[left], np.repeat(expected[..., None], 3, axis=2))
    assert of[DIFFERENCE][tuple(pale)].tolist() == [213, 94, 0]  # too dark
    assert of[DIFFERENCE][tuple(dark)].tolist() == [0, 114, 178]  # too pale
    assert (of[DIFFERENCE][sketch == target] == 255).all()


def test_the_worst_places_are_shown_pixel_by_pixel() -> None:
    gray = np.full((900, 700), 255, np.uint8)
    sketch = gray.copy()
    sketch[100:140, 50:90] = 0
    sketch[700:750, 600:640] = 150
    picture = np.asarray(sheet("title", [Shown("", gray, sketch), Shown("", gray, sketch)]))
    assert picture.shape[0] == LINE + 2 * (2 * LINE + 411 + GAP + 2 * (CELL + GAP) + LINE)
    for top in (3 * LINE + 411 + GAP, picture.shape[0] - LINE - 2 * (CELL + GAP)):
        for left in (SKETCH, TARGET):
            first, second = (
                picture[y : y + CELL, left : left + CELL, 0] for y in (top, top + CELL + GAP)
            )
            assert (first == 0).sum() == (1600 if left == SKETCH else 0)
            assert (second == 150).sum() == (2000 if left == SKETCH else 0)
