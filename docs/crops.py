"""Shows what a model is trained on, for docs/training.md: crops, what they become, drawn scenes.

python -m docs.crops OUT.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sketchify_rt.codec import cpu
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.options import MAX_PIXELS
from training import augment
from training.scenes import scene
from training.screentone import screentone

_SIDE, _GAP, _CAPTION = 192, 6, 24  # pixels
_ROWS = 3


def columns() -> dict[str, Gray]:
    """Captions and pictures, uint8 (_SIDE, _SIDE)."""
    page = cpu.decode(Path("samples/island.png").read_bytes(), "island.png", MAX_PIXELS)
    crop = cv2.resize(page[60:460, 300:700], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    crop = np.asarray(crop, np.uint8)
    seeds = iter(range(100))
    rng = lambda: np.random.default_rng(next(seeds))  # noqa: E731
    shown = {"a crop": crop}
    shown |= {f"ink {n}": augment.ink(crop, rng()) for n in (1, 2, 3)}
    shown |= {"pencil": augment.pencil(crop, rng()), "halftone": screentone(crop, rng())}
    return shown | {f"scene {n}": scene(rng(), _SIDE) for n in (1, 2, 3, 4)}


def sheet(shown: dict[str, Gray]) -> Image.Image:
    """A column for each picture: itself, its binary, its dodge."""
    step = _SIDE + _GAP
    size = (len(shown) * step + _GAP, _ROWS * step + _CAPTION)
    image = Image.new("L", size, 255)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    for column, (caption, gray) in enumerate(shown.items()):
        left = _GAP + column * step
        for row, made in enumerate((gray, native.binarize(gray), native.dodge(gray))):
            image.paste(Image.fromarray(made), (left, row * step))
        pen.text((left + _SIDE // 2, _ROWS * step), caption, 0, font, anchor="ma")
    return image


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    sheet(columns()).save(parser.parse_args().out, optimize=True)
