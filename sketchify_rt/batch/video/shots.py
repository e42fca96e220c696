"""Decides for whole shots of a video whether frames are black and white pages.

Each frame keeps its own hint. Hints are means over some 200 cells and steady by themselves: camera
noise of 4 levels moves them by 0.4 levels from frame to frame. Means over 4 to 16 frames, or one
hint per shot, do not reduce the flicker of the sketches, 3.65 levels, which comes from strokes that
come and go. They lag behind what moves and fades, by up to 25 levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sketchify_rt import bilevel
from sketchify_rt.image import Gray, fit, resize
from sketchify_rt.inputs import Picture

# A shot ends if two frames, reduced to _SIDE pixels, differ by more than these levels on average.
# Measured on comics of 640 x 360: 99.5 % of 1275 pairs of pictures differ by more, half of them by
# 59. Two frames of a shot differ by 1.1 with noise of 10 levels, by 10 in a fade to black of a
# second, and by at most 18 in a pan of 8 pixels per frame. PySceneDetect has 27, with colours.
_CUT = 25.0
_SIDE = 64


def told(frames: Iterable[Gray]) -> Iterator[Picture]:
    """Yields the frames, each with its `binary`.

    In a shot that begins with a page, frames are pages up to the first one with tones, as when a
    title dissolves into a picture. So there is at most one change in a shot, which moves a sketch
    of a page by some 10 levels.

    Args:
        frames: Luma, uint8 (H, W), in the order in which they are shown.
    """
    page, before = False, None
    for luma in frames:
        small = resize(luma, *fit(luma.shape, _SIDE, None)[2:])
        page = (page or _cut(before, small)) and bilevel.level(luma) is not None
        before = small
        yield Picture("<frame>", luma, binary="page" if page else "threshold")


def _cut(before: Gray | None, now: Gray) -> bool:
    """Tells whether a shot begins, as with the first frame and with another size."""
    if before is None or before.shape != now.shape:
        return True
    return bool(np.abs(now.astype(np.int16) - before).mean() > _CUT)
