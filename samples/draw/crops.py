"""Cuts what engines are verified on from the sample pictures: `python -m samples.draw.crops`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sketchify_rt import Sketchifier
from sketchify_rt.image import Gray
from sketchify_rt.models.crops import FILE

_SIDE = 512
_SAMPLES = Path(__file__).parents[1]

# First row and column of each crop.
_PLACES = {
    "island.png": [(100, 104)],
    "lake.jpg": [(0, 688), (288, 0)],
    "portrait.webp": [(100, 180)],
    "still-life.jpg": [(0, 248)],
    "pages/001.png": [(0, 0), (400, 0), (768, 388)],
}


def cut() -> Gray:
    """uint8 (8, 512, 512), 0 or 255."""
    with Sketchifier(mode="binary", device="cpu") as binarize:
        pictures = {name: binarize(_SAMPLES / name) for name in _PLACES}
    return np.stack(
        [
            pictures[name][row : row + _SIDE, column : column + _SIDE]
            for name, places in _PLACES.items()
            for row, column in places
        ]
    )


if __name__ == "__main__":
    np.savez_compressed(FILE, bits=np.packbits(cut() > 0, axis=-1))
