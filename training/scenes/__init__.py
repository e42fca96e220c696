"""Drawn scenes: pieces of manga and ink pages, made by code.

A scene is drawn at two samples a pixel, ink 0 on paper 255, and reduced, which antialiases it.
`canvas` says what is drawn on, `geometry` makes curves and outlines, `pen` draws them; `strokes`,
`textures` and `figures` are the motifs of `line_art`; `signs`, `lettering`, `panels`, `tones` and
`wash` are what else a page has; `scan` is how it arrives.
"""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes.canvas import PAPER, SAMPLES, Motif, Rng
from training.scenes.lettering import lettering
from training.scenes.line_art import line_art, night, solid_blacks
from training.scenes.panels import panels
from training.scenes.scan import scan
from training.scenes.tones import flat_tones, screentones
from training.scenes.wash import wash

KINDS = {
    "line art": 0.30,
    "night": 0.05,  # white lines on black
    "solid blacks": 0.10,
    "panels": 0.11,
    "lettering": 0.09,
    "wash": 0.13,
    "flat tones": 0.07,
    "screentone": 0.15,
}
"""The kinds of scenes and their shares."""

_DRAW: dict[str, Motif] = {
    "line art": line_art,
    "night": night,
    "solid blacks": solid_blacks,
    "panels": panels,
    "lettering": lettering,
    "wash": wash,
    "flat tones": flat_tones,
    "screentone": line_art,  # `scene` lays the tones
}


def scene(rng: Rng, side: int, kind: str | None = None) -> Gray:
    """A made-up piece of a page, at the scale of a page 1000 to 2000 pixels wide.

    side: of the square, in pixels, at least 32. kind: one of `KINDS`, or None for any, by their
    shares. Returns uint8 (side, side) luma. The state of `rng` determines it for one version of
    OpenCV: 5 letters with another font than 4.
    """
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    page = np.full((side * SAMPLES, side * SAMPLES), PAPER, np.uint8)
    _DRAW[kind](page, rng)
    gray = np.asarray(cv2.resize(page, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    if kind == "screentone":
        gray = screentones(gray, rng)
    return scan(gray, rng, pencil=kind in ("line art", "wash"))
