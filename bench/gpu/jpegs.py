"""Pages as JPEG files in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from bench.bench_kernels import page
from sketchify_rt.options import Options

Shape = tuple[int, int]

_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 95)
_GRAINS = 16


def equal(count: int, height: int, width: int) -> list[bytes]:
    """Distinct pages of one size."""
    return _encoded([(height, width)] * count)


def mixed(count: int, height: int, width: int) -> list[bytes]:
    """Distinct pages of many sizes, 0.5 to 1.2 of the one given, each its own."""
    factors = np.random.default_rng(1).uniform(0.5, 1.2, (count, 2))
    return _encoded([(int(height * down), int(width * across)) for down, across in factors])


def _encoded(shapes: Sequence[Shape]) -> list[bytes]:
    """Pages in colour with subsampled chroma, as most are, cut from a drawn one and shifted."""
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    gray = page(height, width, None)
    across = np.linspace(0.8, 1, width)[:, None]
    tint = np.concatenate([across, across[::-1], np.full_like(across, 0.9)], 1)
    colour = np.rint(gray[..., None] * tint).astype(np.uint8)
    rng = np.random.default_rng(2)
    grains = rng.integers(0, 8, (_GRAINS, height, width, 1), np.uint8)

    def encoded(index: int) -> bytes:
        rows, columns = shapes[index]
        shifted = np.roll(colour, (29 * index, 43 * index), (0, 1))[:rows, :columns]
        grain = grains[index % _GRAINS, :rows, :columns].repeat(3, 2)
        done, data = cv2.imencode(".jpg", cv2.add(shifted, grain), _QUALITY)
        if not done:
            raise RuntimeError("OpenCV wrote no JPEG")
        return data.tobytes()

    with ThreadPoolExecutor(Options().thread_count) as pool:
        return list(pool.map(encoded, range(len(shapes))))
