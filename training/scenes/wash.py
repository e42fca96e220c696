"""Scenes of ink wash."""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes.canvas import Array, Rng, side_of
from training.scenes.geometry import blob
from training.scenes.line_art import line_art_over
from training.scenes.noise import clouds


def wash(page: Gray, rng: Rng) -> None:
    """Layers of ink wash, with dry brush at times, mostly under line art."""
    side = int(side_of(page))
    light = np.ones((side, side), np.float32)
    for _ in range(int(rng.integers(2, 5))):
        cover = _layer(side, rng)
        light *= 1 - rng.uniform(0.1, 0.75) * cover
    if rng.random() < 0.4:
        light *= 1 - _dry_brush(side, rng)
    tones = np.asarray(cv2.convertScaleAbs(light, alpha=255), np.uint8)
    cv2.resize(tones, page.shape[::-1], page, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.75:
        line_art_over(page, rng)


def _layer(side: int, rng: Rng) -> Array:
    """Cover (side, side), about 0..1, of a shape with soft or hard edge, dark rim, granulation."""
    shape = np.zeros((side, side), np.uint8)
    outline = blob(rng, rng.uniform(0.15, 0.6) * side, side)
    cv2.fillPoly(shape, [np.asarray(np.rint(outline), np.int32)], 255)
    spread = int(rng.uniform(2, 10)) * 2 + 1
    field = cv2.blur(shape, (spread, spread)).astype(np.float32) / 255
    field += rng.uniform(0.05, 0.5) * (clouds(side, int(rng.integers(4, 24)), rng) - 0.5)
    hard = rng.random() < 0.6
    cover = np.clip((field - 0.5) * (6 if hard else 1) + 0.5, 0, 1)
    if hard and rng.random() < 0.7:  # pigment gathers where the wash dries last
        rim = np.clip(1 - np.abs(field - 0.62) * rng.uniform(5, 9), 0, 1)
        cover *= 0.75 + rng.uniform(0.2, 0.6) * rim
    if rng.random() < 0.6:
        cells = int(rng.integers(side // 6, side // 2))
        cover *= 1 - rng.uniform(0.03, 0.5) * clouds(side, cells, rng)
    return np.asarray(cover, np.float32)


def _dry_brush(side: int, rng: Rng) -> Array:
    """Cover (side, side), 0..1, of a streaky stroke over the scene."""
    band = int(rng.uniform(0.1, 0.35) * side)
    bristles = rng.random((band, 1 + side // 40), np.float32)
    streaks = cv2.resize(bristles, (int(1.4 * side), band), interpolation=cv2.INTER_LINEAR)
    dry = np.linspace(0, rng.uniform(0.3, 0.9), streaks.shape[1], dtype=np.float32)
    streaks = np.clip((streaks - dry) * 6, 0, 1) * np.float32(rng.uniform(0.3, 0.95))
    turn = cv2.getRotationMatrix2D((streaks.shape[1] / 2, band / 2), rng.uniform(0, 360), 1)
    turn[:, 2] += rng.uniform(0.2, 0.8, 2) * side - (streaks.shape[1] / 2, band / 2)
    return np.asarray(cv2.warpAffine(streaks, turn, (side, side)), np.float32)
