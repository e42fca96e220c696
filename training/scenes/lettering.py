"""Scenes with writing: balloons, sound effects, captions."""

from __future__ import annotations

import string

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import INK, PAPER, SAMPLES, Points, Rng, side_of
from training.scenes.geometry import across, headings
from training.scenes.line_art import line_art
from training.scenes.signs import columns, glyphs, text


def lettering(page: Gray, rng: Rng) -> None:
    """Balloons, mostly over line art, at times with a sound effect or a caption."""
    if rng.random() < 0.8:
        line_art(page, rng)
    for _ in range(int(rng.integers(1, 4))):
        balloon(page, rng)
    if rng.random() < 0.35:
        _sound_effect(page, rng)
    elif rng.random() < 0.2:
        _caption(page, rng)


def balloon(page: Gray, rng: Rng) -> None:
    """A speech balloon with text or columns of signs, with or without a tail."""
    at = x, y = rng.uniform(0.15, 0.85, 2) * side_of(page)
    rx, ry = rng.uniform(28, 70), rng.uniform(28, 70)
    rim = at + _rim(rng) * (rx * 1.15, ry * 1.15)
    width = rng.uniform(1, 3)
    heading = headings(rng.uniform(0, 2 * np.pi))
    tip = at + heading * (rx, ry) * 1.7
    root, foot = at + (tip - at) * 0.5, across(heading) * 7
    tail = np.stack([root + foot, tip, root - foot])
    has_tail = rng.random() < 0.6
    if has_tail:
        pen.lines(page, tail[None], width)
    pen.fill(page, [rim], PAPER)
    pen.loop(page, rim, width)
    if has_tail:
        pen.fill(page, [tail], PAPER)
    if rng.random() < 0.5:
        columns(page, x, y, rx, ry, rng)
    else:
        text(page, x, y, 1.5 * rx, max(1, int(ry / 14)), rng)


def _rim(rng: Rng) -> Points:
    """The rim (120, 2) of a balloon of radius 1 at the origin."""
    a = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    unit: Points = headings(a)
    form = rng.random()
    if form < 0.6:  # an ellipse, more or less square
        return np.sign(unit) * np.abs(unit) ** rng.uniform(0.6, 1)
    wave = np.abs(np.sin(a * int(rng.integers(8, 20)) / 2))
    r = 1 + 0.12 * wave if form < 0.8 else 1.3 - 0.4 * wave  # a cloud or a burst
    return unit * r[:, None]


def _sound_effect(page: Gray, rng: Rng) -> None:
    """A few big signs or letters with an outline."""
    side, n = side_of(page), int(rng.integers(1, 4))
    size = rng.uniform(0.25, 0.6) * side
    layer = np.full_like(page, PAPER)
    if rng.random() < 0.5:
        step = np.array([0.3, 0.9] if rng.random() < 0.5 else [0.9, 0.15])
        at = rng.uniform(0.2, 0.6, 2) * side + np.arange(n)[:, None] * step * size
        glyphs(layer, at, size, size * rng.uniform(0.08, 0.16), rng)
    else:
        word = "".join(rng.choice(list(string.ascii_uppercase + "!?"), n + 1))
        corner = int(rng.uniform(0, 0.4) * len(page)), int(rng.uniform(0.4, 0.95) * len(page))
        font, scale = cv2.FONT_HERSHEY_DUPLEX, size * SAMPLES / 22
        thick = max(1, round(0.12 * size * SAMPLES))
        cv2.putText(layer, word, corner, font, scale, INK, thick, cv2.LINE_AA)
    inner, outer = (PAPER, INK) if rng.random() < 0.5 else (INK, PAPER)
    rims, _ = cv2.findContours(255 - layer, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.polylines(page, rims, True, outer, int(rng.integers(3, 14)), cv2.LINE_AA)
    cv2.copyTo(np.full_like(page, inner), 255 - layer, page)


def _caption(page: Gray, rng: Rng) -> None:
    """A line of text in a box."""
    at = x, y = rng.uniform(0.2, 0.8, 2) * side_of(page)
    box = at + np.array([(-70, -16), (70, -16), (70, 16), (-70, 16)])
    pen.fill(page, [box], PAPER)
    pen.loop(page, box, 1.5)
    text(page, x, y, 120, 1, rng)
