"""Writing: lines of Latin letters, and signs made of strokes as kana and kanji are."""

from __future__ import annotations

import string

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import INK, SAMPLES, Points, Rng
from training.scenes.geometry import ribbons

_FONTS = 8  # OpenCV numbers them from 0


def text(page: Gray, x: float, y: float, width: float, rows: int, rng: Rng) -> None:
    """Latin lettering of several lines, centred on (x, y)."""
    font = int(rng.integers(_FONTS))
    size = rng.uniform(0.35, 0.9) * SAMPLES
    thick = int(rng.integers(1, 4))
    letters = string.ascii_uppercase if rng.random() < 0.7 else string.ascii_letters + "0123456789"
    pitch = 30 * size
    n = max(1, int(width * SAMPLES / (17 * size)))
    for row in range(rows):
        chosen = rng.integers(0, len(letters), n)
        word = "".join(
            letters[i] if ink else " " for i, ink in zip(chosen, rng.random(n) > 0.17, strict=True)
        )
        word = word if rng.random() < 0.8 else word[: max(1, n // 2)] + "!"
        (w, _), _ = cv2.getTextSize(word, font, size, thick)
        at = int(x * SAMPLES - w / 2), int(y * SAMPLES + (row - rows / 2 + 0.8) * pitch)
        cv2.putText(page, word, at, font, size, INK, thick, cv2.LINE_AA)


def glyphs(page: Gray, centres: Points, size: float, width: float, rng: Rng) -> None:
    """Signs made of a few strokes each, as kana and kanji are, centred on (n, 2)."""
    n = len(centres)
    t = np.linspace(0, 1, 7)
    for _ in range(int(rng.integers(4, 9))):
        start, end = rng.uniform(-0.45, 0.45, (2, n, 1, 2))
        form = rng.integers(0, 5, n)  # two in five level, one upright, two sweeps
        level, upright, sweep = form < 2, form == 2, form > 2
        reach = rng.uniform(0.15, 0.45, (n, 1))
        start[level, :, 0], end[level, :, 0] = -reach[level], reach[level]
        end[level, :, 1] = start[level, :, 1] - 0.04
        start[upright, :, 1], end[upright, :, 1] = -reach[upright], reach[upright]
        end[upright, :, 0] = start[upright, :, 0]
        bow = rng.normal(0, 0.15, (n, 1, 2)) * sweep[:, None, None] * np.sin(np.pi * t)[:, None]
        curves = centres[:, None] + size * (start + (end - start) * t[:, None] + bow)
        # A brush leaves the paper slowly after a sweep, and rests at the end of the others.
        widths = width * np.where(sweep[:, None], 1.1 - 0.7 * t, 0.75 + 0.4 * t**4)
        pen.fill(page, ribbons(curves, widths))


def columns(page: Gray, x: float, y: float, rx: float, ry: float, rng: Rng) -> None:
    """Upright columns of signs that fill the ellipse at (x, y) of radii rx, ry."""
    size = rng.uniform(9, 18)
    most = 0.85 * rx // (1.25 * size)
    offset = np.arange(-most, most + 1) * 1.25 * size
    cells = [
        (x + dx, y - high + size * (k + 0.5))
        for dx, high in zip(offset, 0.8 * ry * np.sqrt(1 - (offset / rx) ** 2), strict=True)
        for k in range(int(2 * high / size))
    ]
    if cells:
        glyphs(page, np.array(cells, np.float32), size * 0.9, size * rng.uniform(0.07, 0.14), rng)
