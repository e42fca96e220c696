"""The sheet as one PNG: a row for each picture, a column for each step."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sketchify_rt.compare.figure import Figure, Picture
from sketchify_rt.compare.words import LEGEND, NO_TONES, TITLE, figures

BOX = (460, 320)  # of a panel, pixels
_MARGIN, _GAP = 40, 16
_STEP = BOX[1] + _GAP
_COLUMNS = 7
_WIDTH = 2 * _MARGIN + _COLUMNS * _STEP - _GAP

_PAPER, _INK, _FAINT, _RULE = "#ffffff", "#1b1b1b", "#6b6b6b", "#d5d5d5"
_LARGE, _MEDIUM, _SMALL = map(ImageFont.load_default, (32, 20, 17))


def sheet(rows: Iterable[Figure], made_by: str) -> bytes:
    """Makes the sheet.

    Args:
        rows: The pictures, at least one. Each is released before the next one is taken.
        made_by: What made the sketches, for the head.

    Returns:
        A PNG file, 2416 pixels wide, at most about 620 pixels high for each row.
    """
    paper = np.concatenate([_head(made_by), *map(_block, rows)])
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "png")
    return file.getvalue()


def _head(made_by: str) -> Picture:
    block = Image.new("RGB", (_WIDTH, 124), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((_MARGIN, 64), TITLE, _INK, _LARGE, "ls")
    draw.text((_MARGIN, 100), f"{made_by}. {LEGEND}", _FAINT, _SMALL, "ls")
    return np.asarray(block)


def _block(figure: Figure) -> Picture:
    height, width = figure.panels["sketch"].picture.shape
    pictures, below = 100, 100 + height
    block = Image.new("RGB", (_WIDTH, below + 56), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.line((_MARGIN, 0, _WIDTH - _MARGIN, 0), _RULE)
    _write_figures(draw, figure)
    for column, (title, panel) in enumerate(figure.panels.items()):
        left = _MARGIN + column * _STEP
        draw.text((left, pictures - 12), title, _INK, _SMALL, "ls")
        draw.rectangle((left - 1, pictures - 1, left + width, below), None, _RULE)
        block.paste(Image.fromarray(panel.picture), (left, pictures))
        draw.text((left, below + 25), panel.note, _FAINT, _SMALL, "ls")
    return np.asarray(block)


def _write_figures(draw: ImageDraw.ImageDraw, figure: Figure) -> None:
    """Writes the figures from the right, and the name and the size from the left."""
    right = _WIDTH - _MARGIN
    shown = figures(figure.metrics) if figure.metrics else {"": NO_TONES}
    for name, value in reversed(shown.items()):
        for text, colour, space in ((value, _INK, 8), (name, _FAINT, 28)):
            draw.text((right, 46), text, colour, _MEDIUM, "rs")
            right -= round(_MEDIUM.getlength(text)) + space
    size = f"{figure.width} x {figure.height}"
    room = right - _MARGIN - _MEDIUM.getlength(size) - 40
    name, kept = figure.name, len(figure.name)
    while _MEDIUM.getlength(name) > room and kept > 8:  # leaves out the middle of a long name
        kept -= 1
        name = f"{figure.name[: kept // 2]}...{figure.name[-(kept - kept // 2) :]}"
    draw.text((_MARGIN, 46), name, _INK, _MEDIUM, "ls")
    draw.text((_MARGIN + 20 + _MEDIUM.getlength(name), 46), size, _FAINT, _MEDIUM, "ls")
