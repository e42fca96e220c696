from __future__ import annotations

import numpy as np

from training.sheet import strip


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
