"""Places a picture beside what becomes of it, for the README and for looking at results.

python docs/figure.py OUT.png [--image samples/island.png] [--dodge]
python docs/figure.py OUT.png --sheet PAGE... (a row each: original, binary, sketch, dodge)
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sketchify_rt import Sketchifier

_GAP = 12  # pixels around each panel
_CAPTION = 34  # pixels of height below each panel


def panels(paths: list[Path], modes: list[str]) -> list[list[Image.Image]]:
    """For each path a row: the upright original on white, then the result of each mode."""
    with ExitStack() as stack:
        make = [stack.enter_context(Sketchifier(mode=mode)) for mode in modes]
        return [[original(path), *(Image.fromarray(m(path)) for m in make)] for path in paths]


def original(path: Path) -> Image.Image:
    """The picture upright, as RGB on white."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def figure(rows: list[list[Image.Image]], captions: list[str], width: int) -> Image.Image:
    """All rows below each other, `width` pixels wide, captions under the last row."""
    wide = (width - _GAP * (len(captions) + 1)) // len(captions)
    highs = [round(wide * row[0].height / row[0].width) for row in rows]
    sheet = Image.new("RGB", (width, sum(highs) + _GAP * (len(rows) + 1) + _CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=20)
    y = _GAP
    for row, high in zip(rows, highs, strict=True):
        for k, panel in enumerate(row):
            x = _GAP + k * (wide + _GAP)
            small = panel.convert("RGB").resize((wide, high), Image.Resampling.LANCZOS)
            sheet.paste(small, (x, y))
            pen.rectangle((x - 1, y - 1, x + wide, y + high), outline="#cccccc")
        y += high + _GAP
    for k, caption in enumerate(captions):
        x = _GAP + k * (wide + _GAP) + wide // 2
        pen.text((x, y), caption, fill="#444444", font=font, anchor="ma")
    return sheet


def reduce(sheet: Image.Image, colored: int) -> Image.Image:
    """The sheet in 256 colours, a third of the bytes.

    The first `colored` columns get most of the palette and are dithered; greys stay clean.
    """
    first = sheet.crop((0, 0, colored, sheet.height))
    colors = first.quantize(208).getpalette() or []
    greys = [level for k in range(48) for level in [round(k * 255 / 47)] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors[: 3 * 208] + greys)
    index = np.zeros(np.asarray(sheet).shape[:2], np.uint8)
    index[:, :colored] = first.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    # by hand, since Pillow's search for the nearest colour turns white into a near white
    rgb = np.asarray(sheet)
    grey = (rgb == rgb[..., :1]).all(-1)
    index[grey] = 208 + np.rint(rgb[grey, 0] * (47 / 255)).astype(np.uint8)
    out = Image.fromarray(index)
    out.putpalette(palette.getpalette() or [])
    return out


def main() -> None:
    """Parses the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT.png")
    parser.add_argument("--image", type=Path, default=Path("samples/island.png"))
    parser.add_argument("--dodge", action="store_true", help="add the dodge filter's result")
    parser.add_argument("--sheet", type=Path, nargs="+", metavar="PAGE", help="a row for each page")
    parser.add_argument("--width", type=int, default=1600, help="pixels")
    args = parser.parse_args()
    modes = ["binary", "sketch"] + ["dodge"] * bool(args.dodge or args.sheet)
    sheet = figure(panels(args.sheet or [args.image], modes), ["input", *modes], args.width)
    reduce(sheet, args.width // (len(modes) + 1)).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
