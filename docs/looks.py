"""Draws the looks of a landscape and of a page, for docs/how.md.

python -m docs.looks OUT.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from docs.figure import figure, original
from sketchify_rt import Sketchifier
from sketchify_rt.options import LOOKS, LookName

_PICTURES = (Path("samples/lake.jpg"), Path("samples/pages/001.png"))
_WIDTH = 1200  # pixels
_COLOURS = 256  # a small file
_SHOWN: list[LookName] = sorted(LOOKS, key=lambda look: look != "color")  # beside its original


def main() -> None:
    """Parses the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT.png")
    args = parser.parse_args()
    with Sketchifier() as sketchify:
        rows = []
        for path in _PICTURES:
            picture = original(path)
            shown = [picture, *(sketchify(picture, look=look) for look in _SHOWN)]
            rows.append([panel.crop((0, 0, *_part(picture))) for panel in shown])
    sheet = figure(rows, ["original", *_SHOWN], _WIDTH)
    sheet.quantize(_COLOURS, dither=Image.Dither.NONE).save(args.output, optimize=True)


def _part(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the upper part that is shown."""
    return picture.width, min(picture.height, picture.width)


if __name__ == "__main__":
    main()
