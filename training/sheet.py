"""Pictures to look at: figures do not show what is wrong with a face."""

from __future__ import annotations

import numpy as np

from sketchify_rt.image import Gray

_GAP = 4  # pixels between pictures
_GROUND = 128  # level between pictures


def strip(binary: Gray, sketch: Gray, target: Gray) -> Gray:
    """A row for each crop: binary, sketch and target side by side.

    Each uint8 (N, H, W), N at least 1; returns uint8 (N * (H + 4), 3 * (W + 4)).
    """
    crops = np.stack([binary, sketch, target], axis=1)
    margins = ((0, 0), (0, 0), (0, _GAP), (0, _GAP))
    framed = np.pad(crops, margins, constant_values=_GROUND)
    count, columns, height, width = framed.shape
    # From (crop, column, row of pixels, pixel) to (crop, row of pixels, column, pixel).
    return framed.transpose(0, 2, 1, 3).reshape(count * height, columns * width)
