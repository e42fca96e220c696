"""Looks: what becomes of a sketch after the filters or the U-Net, level by level.

    gray ───▶ black areas ─┐
                           ├─ the darker ─▶ paper ─▶ levels ─▶ curve ─▶ ink on a ground
    sketch ────────────────┘

Black areas and levels look at the histograms of the whole image. All else is one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sketchify_rt.image import Gray
    from sketchify_rt.options import Look

    Counts = NDArray[np.int64]

STEP = 16
"""Every so many rows are counted in histograms."""

# Levels of luma, chosen by eye from forty pictures. An area is black up to `_OVER_BLACK` above the
# page's own black, which is 0 but for scans of ink, and left to the sketch `_RAMP` later.
_IN_BLACK = 0.02  # share of the pixels that are darkest
_MOST_BLACK = 36
_OVER_BLACK, _RAMP = 12, 32
_INK_OF_BLACK = 231  # graphite is never quite black

_FAINT = 128  # ink that paper 1 begins to drop
_INKED = 24  # levels of ink that count as a stroke
_DARKEST = 0.05  # share of the pixels of strokes that become `_FULL`
_FULL = 225  # levels of ink
_MOST_GAIN = 2.5  # else the noise of an empty page would become ink


def tables(
    look: Look, of_sketch: Callable[[], Counts], of_gray: Callable[[], Counts]
) -> tuple[int, Gray, Gray]:
    """Makes the tables that give a sketch a look, see `kernels.reference.look`.

    Args:
        look: The look.
        of_sketch: Counts the pixels of the sketch by their levels, in every `STEP`th row. Called
            if the look needs it.
        of_gray: The same for the luma that it was drawn from.

    Returns:
        black, shade and table.
    """
    gained = gain(of_sketch()) if look.levels == "auto" else 1.0
    if look.blacks == "keep":
        return first_black(of_gray()), shades(gained), ink_table(look, gained)
    return 0, np.full(48, 255, np.uint8), ink_table(look, gained)


def counts(image: Gray) -> Counts:
    """Counts the pixels of each level, int64 (256,), in every `STEP`th row."""
    rows = np.ascontiguousarray(image[::STEP])
    return cv2.calcHist([rows], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def shades(gained: float) -> Gray:
    """Returns what black areas of a picture are drawn as, before levels.

    Args:
        gained: By how much levels multiply the ink later.

    Returns:
        uint8 (48,): for the level of `first_black`, and the lighter ones behind it.
    """
    ink = _INK_OF_BLACK / gained * (1 - np.arange(48) / _RAMP).clip(0)
    return np.rint(255 - ink).astype(np.uint8)


def ink_table(look: Look, gained: float) -> Gray:
    """Makes the table of paper, levels, curve and ground.

    Args:
        look: The look.
        gained: By how much levels multiply the ink.

    Returns:
        uint8 (256,), for levels of the sketch.
    """
    ink = 255.0 - np.arange(256)
    if look.paper:  # softly, so that no line ends in a step
        share = (ink / (look.paper * _FAINT)).clip(0, 1)
        ink *= share * share * (3 - 2 * share)
    ink = 255 * np.minimum(1, ink * gained / 255) ** look.gamma
    return np.rint(look.ground + (look.ink - look.ground) * ink / 255).astype(np.uint8)


def gain(found: Counts) -> float:
    """Returns by how much ink is multiplied so that the darkest strokes are almost black.

    Args:
        found: Pixels of each level of the sketch, (256,).

    Returns:
        1 to `_MOST_GAIN`; 1 for an empty page.
    """
    strokes = np.cumsum(found[: 256 - _INKED])  # the darkest first
    if not strokes[-1]:
        return 1.0
    level = int(np.searchsorted(strokes, _DARKEST * strokes[-1]))
    return min(max(1.0, _FULL / (255 - level)), _MOST_GAIN)


def first_black(found: Counts) -> int:
    """Returns the level up to which a picture is black.

    In a scan of ink that is a little lighter than the ink, which may be no deep black: ink is a
    peak of the histogram with less behind it. The shadows of a painting have more behind them.

    Args:
        found: Pixels of each level of the picture, (256,).
    """
    total = np.cumsum(found)
    level = min(int(np.searchsorted(total, _IN_BLACK * total[-1])), _MOST_BLACK)
    near = int(total[level + 24])
    behind = max(1, int(total[level + 72]) - near)
    return _OVER_BLACK + round(level * min(max(near / behind - 1, 0), 1))
