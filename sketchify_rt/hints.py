"""Hints that are told, rather than computed from tones: planes of one level for each cell."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sketchify_rt.image import CELL, Gray, fit, resize
from sketchify_rt.options import PENCILS, Hint, Painted

# Of black and white pages, whose tones tell nothing of how dark their strokes should be.
PAGE_PENCIL = PENCILS["4B"]


def told(hint: Hint, page: bool, shape: tuple[int, int], square: int | None) -> Gray | None:
    """Returns the plane of a hint, see `plane`; None where the tones of the image decide.

    Args:
        hint: See `Options`.
        page: Whether the image is black and white already. Then PAGE_PENCIL decides, not its tones.
        shape: (H, W) of the image, cut and resized already.
        square: See `Options`.
    """
    if hint == "auto":
        return plane(PAGE_PENCIL, shape, square) if page else None
    levels = plane(hint, shape, square)
    if page and isinstance(hint, Painted):
        return np.where(levels, levels, plane(PAGE_PENCIL, shape, square))
    return levels


def plane(
    hint: Literal["none"] | float | Painted, shape: tuple[int, int], square: int | None
) -> Gray:
    """Returns the levels of the cells of an image.

    Args:
        hint: See `Options`.
        shape: (H, W) of the image, cut and resized already.
        square: See `Options`; a painted hint is cut alike.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)): 0 where nothing is known or painted, 1 to 255 as of
        `kernels.reference.hint` elsewhere.
    """
    rows, columns = -(-shape[0] // CELL), -(-shape[1] // CELL)
    if not isinstance(hint, Painted):
        return np.full((rows, columns), 0 if hint == "none" else round(1 + 254 * hint), np.uint8)
    levels = np.frombuffer(hint.levels, np.uint8).reshape(hint.height, hint.width)
    down, across, _, _ = fit(levels.shape, None, square)
    levels = levels[down, across]
    # A cell that is painted by half or more has the mean of what is painted, both as weighted by
    # `resize`, which looks half a cell beyond.
    share = resize(np.where(levels, np.uint8(255), np.uint8(0)), rows, columns).astype(np.int32)
    sums = resize(levels, rows, columns).astype(np.int32)
    means = (510 * sums + share) // np.maximum(2 * share, 1)
    return np.where(share >= 128, np.clip(means, 1, 255), 0).astype(np.uint8)
