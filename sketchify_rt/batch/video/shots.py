"""Frames of a video, told alike within a shot whether they are black and white pages.

Hints stay those of each frame. They are means over some 200 cells, and steady by themselves: camera
noise of 4 levels moves them by 0.4 levels from frame to frame. Means over 4 to 16 frames, or one
hint for a shot, leave the flicker of the sketches as it is, 3.65 levels, all of it of strokes that
come and go, and lag behind what moves and fades, by up to 25 levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sketchify_rt import bilevel
from sketchify_rt.image import Gray, fit, resize
from sketchify_rt.inputs import Picture

# Mean difference, in levels, between two frames reduced to _SIDE pixels, from which on a shot ends.
# Measured on comics of 640 x 360: of 1275 pairs of pictures 99.5 % differ by more, a half by 59. Of
# two frames of a shot, noise of 10 levels gives 1.1, a fade to black of a second 10, a pan of 8
# pixels a frame at most 18. PySceneDetect has 27, with colours.
_CUT = 25.0
_SIDE = 64


def told(frames: Iterable[Gray]) -> Iterator[Picture]:
    """Yields the frames, each with its `binary`.

    A shot that begins with a page is one of pages up to the first frame that has tones, as where a
    title dissolves into a picture; it does not become one again. So there is at most one change in
    a shot, which moves a sketch of a page by some 10 levels.

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
    """Whether a shot begins; true of the first frame, and of one of another size."""
    if before is None or before.shape != now.shape:
        return True
    return bool(np.abs(now.astype(np.int16) - before).mean() > _CUT)
