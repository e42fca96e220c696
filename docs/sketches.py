"""Shows what the model makes of a painted page and of a drawing in ink, for the README.

python -m docs.sketches OUT.png PAINTED INK

PAINTED and INK are picture files, each followed by the crop to show: FILE@LEFT,TOP.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from docs.figure import figure, original
from sketchify_rt import Sketchifier

_SIZE = (360, 300)  # of a crop, in pixels
_WIDTH = 1200


def painted(place: str) -> Image.Image:
    """A row: the picture, what the U-Net reads, the sketch, and the filter that it learns."""
    ways = {
        "picture": original,
        "black and white": Sketchifier(mode="binary"),
        "sketch": Sketchifier(),
        "dodge filter": Sketchifier(mode="dodge"),
    }
    return _row(place, ways)


def ink(place: str) -> Image.Image:
    """A row: the picture, and what pencils make of it."""
    pencils = {f"--pencil {name}": Sketchifier(hint=name) for name in ("4H", "HB", "4B")}
    return _row(place, {"black and white already": original, **pencils})


def _row(place: str, ways: dict[str, object]) -> Image.Image:
    name, _, corner = place.rpartition("@")
    left, top = map(int, corner.split(","))
    box = left, top, left + _SIZE[0], top + _SIZE[1]
    images = [way(Path(name)) for way in ways.values()]  # type: ignore[operator]
    crops = [
        (each if isinstance(each, Image.Image) else Image.fromarray(each)).crop(box)
        for each in images
    ]
    return figure([crops], list(ways), _WIDTH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("out", "painted", "ink"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    rows = painted(arguments.painted), ink(arguments.ink)
    sheet = Image.new("L", (_WIDTH, sum(row.height for row in rows)), 255)
    sheet.paste(rows[0].convert("L"))
    sheet.paste(rows[1].convert("L"), (0, rows[0].height))
    sheet.save(arguments.out, optimize=True)
