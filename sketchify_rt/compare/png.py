"""The sheet as one PNG: a row for each picture, a column for each step."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from sketchify_rt.compare.figure import Figure
from sketchify_rt.compare.words import LEGEND, NO_TONES, TITLE, figures

BOX = (460, 320)  # of a panel, pixels
_MARGIN, _GAP = 40, 16
_STEP = BOX[1] + _GAP
_COLUMNS = 7
_WIDTH = 2 * _MARGIN + _COLUMNS * _STEP - _GAP

_PAPER, _INK, _FAINT, _RULE = "#ffffff", "#1b1b1b", "#6b6b6b", "#d5d5d5"
_LARGE, _MEDIUM, _SMALL = 32, 20, 17  # of letters, pixels


def sheet(rows: Iterable[Figure], made_by: str) -> bytes:
    """A PNG of the rows, 2416 pixels wide, at most some 620 high for each, which are taken one by
    one. made_by: what painted the sketches, for the head.
    """
    blocks = [_head(made_by), *map(_block, rows)]
    paper = Image.new("RGB", (_WIDTH, sum(block.height for block in blocks)), _PAPER)
    top = 0
    for block in blocks:
        paper.paste(block, (0, top))
        top += block.height
    file = io.BytesIO()
    paper.save(file, "png")
    return file.getvalue()


def _head(made_by: str) -> Image.Image:
    block, draw = _paper(124)
    _write(draw, _MARGIN, 64, TITLE, _LARGE)
    _write(draw, _MARGIN, 100, f"{made_by}. {LEGEND}", _SMALL, _FAINT)
    return block


def _block(figure: Figure) -> Image.Image:
    height, width = figure.sketch.picture.shape[:2]
    pictures, below = 100, 100 + height
    block, draw = _paper(below + 56)
    draw.line((_MARGIN, 0, _WIDTH - _MARGIN, 0), _RULE)
    _write_figures(draw, figure)
    for column, panel in enumerate(figure.panels):
        left = _MARGIN + column * _STEP
        _write(draw, left, pictures - 12, panel.title, _SMALL)
        draw.rectangle((left - 1, pictures - 1, left + width, below), None, _RULE)
        block.paste(Image.fromarray(panel.picture), (left, pictures))
        _write(draw, left, below + 25, panel.note, _SMALL, _FAINT)
    return block


def _write_figures(draw: ImageDraw.ImageDraw, figure: Figure) -> None:
    """The name of the picture, and its figures from the right."""
    right = _WIDTH - _MARGIN
    said = figures(figure.metrics) if figure.metrics else [("", NO_TONES)]
    for name, value in reversed(said):
        for text, colour, space in ((value, _INK, 8), (name, _FAINT, 28)):
            right -= round(_font(_MEDIUM).getlength(text))
            _write(draw, right, 46, text, _MEDIUM, colour)
            right -= space
    size = f"{figure.width} x {figure.height}"
    room = right - _MARGIN - round(_font(_MEDIUM).getlength(size)) - 40
    name = _shortened(figure.name, room)
    _write(draw, _MARGIN, 46, name, _MEDIUM)
    _write(draw, _MARGIN + 20 + _font(_MEDIUM).getlength(name), 46, size, _MEDIUM, _FAINT)


def _shortened(name: str, room: float) -> str:
    """A name with its middle left out, where it is longer than the room in pixels."""
    font, kept = _font(_MEDIUM), len(name)
    short = name
    while font.getlength(short) > room and kept > 8:
        kept -= 1
        short = f"{name[: kept // 2]}...{name[-(kept - kept // 2) :]}"
    return short


def _paper(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    block = Image.new("RGB", (_WIDTH, height), _PAPER)
    return block, ImageDraw.Draw(block)


def _write(
    draw: ImageDraw.ImageDraw, left: float, base: float, text: str, size: int, colour: str = _INK
) -> None:
    draw.text((left, base), text, colour, _font(size), anchor="ls")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 (in all wheels of Pillow)
    return font
