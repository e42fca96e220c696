"""Lays the lines of a picture over three grounds, for docs/batch.md.

python -m docs.lines OUT.png [--image samples/portrait.webp]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageFilter

from docs.figure import figure, original
from sketchify_rt import Encoding, Sketchifier

_WIDTH = 1200  # pixels
_BLUR = 18  # standard deviation in pixels, as wide as a brush


def grounds(picture: Image.Image) -> dict[str, Image.Image]:
    """What the lines are laid over, by its caption."""
    return {
        "white": Image.new("RGB", picture.size, "white"),
        "paper": Image.new("RGB", picture.size, "#c9a877"),
        "the picture's colours, blurred": picture.filter(ImageFilter.GaussianBlur(_BLUR)),
    }


def main() -> None:
    """Parses the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT.png")
    parser.add_argument("--image", type=Path, default=Path("samples/portrait.webp"))
    args = parser.parse_args()
    with Sketchifier() as sketchify:
        data = sketchify.encode(args.image, Encoding(alpha="lines"))
    lines = Image.open(io.BytesIO(data)).convert("RGBA")
    under = grounds(original(args.image))
    row = [Image.alpha_composite(ground.convert("RGBA"), lines) for ground in under.values()]
    sheet = figure([row], list(under), _WIDTH)
    sheet.quantize(256, dither=Image.Dither.NONE).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
