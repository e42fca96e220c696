"""Which pictures are there twice: rescaled, compressed anew, a little darker."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray

# Bits. On 169 pages of Pepper&Carrot no two pages are closer than 38, and none is further than 14
# from what becomes of it at half its size, at JPEG quality 20, with a gamma of 0.8 or 1.2, with
# noise of 8 levels, or by half its size and JPEG 60. As the engine's dodge draws them: 30, and 14
# without the JPEG 20, which takes one page to 22. (The dHash of as many bits has two pages 11 apart
# and one 14 from its own half at JPEG 60.) Pages of one line of text and nothing else are taken for
# each other.
SAME = 20


def fingerprint(gray: Gray) -> NDArray[np.uint8]:
    """The perceptual hash of a picture, 255 bits in 32 bytes.

    It is pHash (C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions,
    2010) of more bits: which of the 16 x 16 lowest cosine coefficients of the
    picture at 64 x 64, but for the mean, are above their median. gray: uint8 (H, W).
    """
    small = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small.astype(np.float32))[:16, :16].ravel()[1:]
    return np.packbits(lowest > np.median(lowest))


def kept(fingerprints: Sequence[NDArray[np.uint8]], sizes: Sequence[int]) -> list[int]:
    """For each picture the index of the one that is kept of it: its own, or its duplicate's.

    The largest are kept first, of equal ones the first; a picture is left out where one that is
    kept lies within SAME bits of it. So no two that are kept are duplicates of each other.
    """
    chosen: list[int] = []
    prints = np.empty((len(sizes), 32), np.uint8)  # of the chosen
    result = list(range(len(sizes)))
    for index in sorted(result, key=lambda index: -sizes[index]):
        own = fingerprints[index][None]
        if chosen:
            distance, nearest = cv2.batchDistance(
                own, prints[: len(chosen)], cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1
            )
            if distance.item() <= SAME:
                result[index] = chosen[int(nearest.item())]
                continue
        prints[len(chosen)] = own
        chosen.append(index)
    return result
