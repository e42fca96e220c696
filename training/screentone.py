"""Screentone: mid-grays as manga prints them."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray

Rng = np.random.Generator

_SAMPLES = 2  # samples a pixel, each way, that an antialiased tone is reduced from
_WHITE, _BLACK = 250, 6  # tones at least and at most this are paper and ink: no dots as fine


def screentone(gray: Gray, rng: Rng) -> Gray:
    """The picture in dots, lines or grains whose area follows the darkness.

    gray: uint8 (H, W). The screen (its kind, pitch of 3 to 9 pixels, angle, and whether its edges
    are antialiased as in a scan) comes from `rng`. Returns uint8 (H, W) of the same mean within a
    few levels; tones of at least 250 turn 255, of at most 6 turn 0.
    """
    kind = rng.choice(("dots", "lines", "sand"), p=(0.75, 0.13, 0.12))
    pitch = float(rng.triangular(3, 4.5, 9))
    angle = np.pi / 4 if rng.random() < 0.7 else float(rng.uniform(0, np.pi))
    scale = _SAMPLES if rng.random() < 0.75 else 1
    height, width = gray.shape
    big = gray
    if scale > 1:
        shape = (width * scale, height * scale)
        big = np.asarray(cv2.resize(gray, shape, interpolation=cv2.INTER_NEAREST), np.uint8)
    if kind == "sand":
        screen = _sand(big.shape, float(rng.uniform(0.5, 1.0)) * scale, rng)
    else:
        shift = rng.uniform(0, 2 * np.pi, 2)
        screen = _grid(big.shape, pitch * scale, angle, shift, kind == "dots")
    tone = np.asarray(cv2.compare(big, screen, cv2.CMP_GT), np.uint8)
    if scale > 1:
        tone = np.asarray(cv2.resize(tone, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if rng.random() < 0.3:  # the scanner's lens
            tone = np.asarray(cv2.GaussianBlur(tone, (3, 3), rng.uniform(0.3, 0.6)), np.uint8)
    tone[gray >= _WHITE] = 255
    tone[gray <= _BLACK] = 0
    return tone


def _grid(
    shape: tuple[int, ...], pitch: float, angle: float, shift: NDArray[np.float64], dots: bool
) -> Gray:
    """Thresholds, spread evenly over 0..254, of a grid of round dots or of lines.

    A wave cos(ax + by) is cos(ax) cos(by) - sin(ax) sin(by), so a screen is a product of two thin
    matrices.
    """
    y, x = (np.arange(n, dtype=np.float32) for n in shape)
    left, right = [], []
    for turn, phase in zip((angle, angle + np.pi / 2)[: 1 + dots], shift, strict=False):
        a, b = (np.float32(2 * np.pi / pitch * f(turn)) for f in (np.cos, np.sin))
        left += [np.cos(b * y + phase), -np.sin(b * y + phase)]
        right += [np.cos(a * x), np.sin(a * x)]
    reach = 127.0 / (1 + dots)  # of one wave, so that the sum stays in -127..127
    wave = np.stack(left, 1).astype(np.float32) @ np.stack(right).astype(np.float32)
    levels = np.asarray(cv2.convertScaleAbs(wave * reach + 128), np.uint8)
    return np.asarray(cv2.LUT(levels, _even(dots)), np.uint8)


@functools.cache
def _even(dots: bool) -> Gray:
    """The table (256,) that spreads the levels of `_grid`'s waves evenly: their distribution."""
    wave = np.cos(np.linspace(0, 2 * np.pi, 720, endpoint=False)) * 127
    if dots:
        wave = (wave[:, None] + wave[None]).ravel() / 2
    share = np.searchsorted(np.sort(wave + 128), np.arange(256)) / wave.size
    return np.asarray(np.rint(254 * share), np.uint8)


def _sand(shape: tuple[int, ...], grain: float, rng: Rng) -> Gray:
    """Thresholds, spread evenly over 0..254, of grains about `grain` samples in deviation."""
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain), np.uint8)
    counts = np.bincount(soft.ravel(), minlength=256)
    share = (np.cumsum(counts) - counts / 2) / soft.size
    return np.asarray(cv2.LUT(soft, np.rint(254 * share).astype(np.uint8)), np.uint8)
