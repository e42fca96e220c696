"""Pictures to look at: figures do not show what is wrong with a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sketchify_rt.compare.figure import Picture, difference
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.metrics import ssim_map

_GAP = 4  # pixels between pictures
_GROUND = 128  # level between pictures

_CELL = 320  # pixels; side of a crop, width of a reduced page at most
_PAGE_HEIGHT = 460  # of a reduced page, at most
_LINE = 24  # of text
_WIDTH = 5 * (_CELL + _GAP) + _GAP
_PAPER = (225, 225, 225)
_MARK = (220, 0, 120)

Window = tuple[slice, slice]
"""Rows and columns."""


def strip(binary: Gray, sketch: Gray, target: Gray) -> Gray:
    """A row for each crop: binary, sketch and target side by side.

    Each uint8 (N, H, W), N at least 1; returns uint8 (N * (H + 4), 3 * (W + 4)).
    """
    crops = np.stack([binary, sketch, target], axis=1)
    margins = ((0, 0), (0, 0), (0, _GAP), (0, _GAP))
    framed = np.pad(crops, margins, constant_values=_GROUND)
    count, columns, height, width = framed.shape
    # From (crop, column, row of pixels, pixel) to (crop, row of pixels, column, pixel).
    return framed.transpose(0, 2, 1, 3).reshape(count * height, columns * width)


@dataclass(frozen=True)
class Shown:
    """A page of a sheet: what is said of it, the page and its sketch, uint8 (H, W) both."""

    caption: str
    gray: Gray
    sketch: Gray


def best_median_worst(ssim: Sequence[float]) -> dict[str, int]:
    """Places in `ssim` by name; the same place may have several names."""
    order = [int(place) for place in np.argsort(ssim)]
    return {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}


def sheet(title: str, pages: Sequence[Shown]) -> Image.Image:
    """Each page reduced, with two windows of it under it, not reduced.

    Side by side stand the page, its binary, the sketch, its target and their difference: orange
    where the sketch is too dark, blue where it is too pale. The windows are marked: one is where
    sketch and target are least similar, the other where else they differ by the most levels, which
    is often a face.
    """
    blocks = [_block(page) for page in pages]
    paper = Image.new("RGB", (_WIDTH, _LINE + sum(block.height for block in blocks)), _PAPER)
    _write(ImageDraw.Draw(paper), 0, 0, title)
    top = _LINE
    for block in blocks:
        paper.paste(block, (0, top))
        top += block.height
    return paper


def _block(page: Shown) -> Image.Image:
    windows = _windows(page)
    scale = min(1, _CELL / page.gray.shape[1], _PAGE_HEIGHT / page.gray.shape[0])
    height, width = (max(1, round(side * scale)) for side in page.gray.shape)
    crops, step = 2 * _LINE + height + _GAP, min(_CELL, page.gray.shape[0]) + _GAP
    block = Image.new("RGB", (_WIDTH, crops + len(windows) * step + _LINE), _PAPER)
    draw = ImageDraw.Draw(block)
    _write(draw, 0, 0, page.caption)
    for column, (name, picture) in enumerate(_pictures(page).items()):
        left = _GAP + column * (_CELL + _GAP)
        _write(draw, left, _LINE, name)
        reduced = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        block.paste(Image.fromarray(reduced), (left, 2 * _LINE))
        for place, (rows, columns) in enumerate(windows):
            crop = Image.fromarray(picture[rows, columns])
            block.paste(crop, (left, crops + place * step))
            mark = (columns.start, rows.start, columns.stop, rows.stop)
            x0, y0, x1, y1 = (round(side * scale) for side in mark)
            y0, y1 = y0 + 2 * _LINE, y1 + 2 * _LINE
            draw.rectangle((left + x0, y0, left + x1 - 1, y1 - 1), outline=_MARK, width=2)
    return block


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, text: str) -> None:
    draw.text((left + _GAP, top + _GAP), text, "black", ImageFont.load_default(15))


def _pictures(page: Shown) -> dict[str, Picture]:
    target = native.dodge(page.gray)
    return {
        "page": page.gray,
        "binary": native.binarize(page.gray),
        "sketch": page.sketch,
        "target": target,
        "difference, doubled": difference(page.sketch, target),
    }


def _windows(page: Shown) -> list[Window]:
    """Where the page is least similar to its target, and where else it is off by most levels.

    None of a page that is not reduced.
    """
    if page.gray.shape[1] <= _CELL and page.gray.shape[0] <= _PAGE_HEIGHT:
        return []
    target = native.dodge(page.gray)
    unlike = _window(-ssim_map(page.sketch, target))
    error = cv2.absdiff(page.sketch, target).astype(np.float64)
    error[unlike] = 0
    return [unlike, _window(error)]


def _window(fault: NDArray[np.float64]) -> Window:
    """The window of at most _CELL pixels a side with the largest mean."""
    height, width = (min(_CELL, side) for side in fault.shape)
    means = cv2.blur(fault, (width, height), anchor=(0, 0))
    inside = means[: fault.shape[0] - height + 1, : fault.shape[1] - width + 1]
    top, left = (int(place) for place in np.unravel_index(inside.argmax(), inside.shape))
    return slice(top, top + height), slice(left, left + width)
