"""The kernels in Triton: the same bytes as `reference`, on an NVIDIA GPU from sm_80 on.

A batch is a sequence of device images, uint8 (H, W), of any sizes; one launch works on all of them,
on torch's current stream. Where TRITON_INTERPRET=1 was set before the import, on the processor.

A blur is two products with a band matrix, one across rows and one across columns, on the tensor
cores: 38 integer operations a pixel on the scalar units would be bound by arithmetic at an eighth
of the speed of the memory. They are exact. Pixels and weights are whole numbers that FP16 holds;
weights are stored over 256, so that the blur comes out in levels, a multiple of 2**-16 below 256,
as is every partial sum: FP32 holds it with its 24 bits, to which tensor cores align what they add.
Sums of rows are too long for an operand of FP16, but the sum of two of them, `_split`.
"""

# Triton has no types for what is inside of a kernel.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchify_rt.kernels import ragged
from sketchify_rt.kernels.reference import GAUSS_9, GAUSS_21

_TILE = 64
_HALO_9, _HALO_21 = 16, 32  # rows and columns read around a tile, on both sides together
_BAND_ROW = 128
_PAPER = 256  # strength in steps: nothing changes

TILE = tl.constexpr(_TILE)
BAND_ROW = tl.constexpr(_BAND_ROW)
COLUMNS = tl.constexpr(ragged.COLUMNS)
# Added to a float below 2**22 it leaves no bits for fractions: they are rounded, halves to even.
ROUND = tl.constexpr(1.5 * 2**23)


def binarize(images: Sequence[Tensor], *, out: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Black contours on white: an adaptive threshold, then a 3x3 median.

    images: uint8 (H, W) each, on one device, at most 65,535. out: uint8 (H, W) each, the pixels of
    a row adjacent, apart from the images in memory. Returns uint8 (H, W) each, 0 or 255; `out` if
    given, or else views of one buffer. Raises InputError.
    """
    if len(images) == 0:
        return []
    images, pages = ragged.sources(images, torch.uint8), ragged.pages(images, out)
    _launch(_binarize, images, pages, _TILE - 2, _band(GAUSS_9, _HALO_9, images[0].device))
    return pages


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """A pencil drawing: the image divided by its blur (colour dodge), then line strength.

    strength: see `compose`. The rest is as in `binarize`.
    """
    factor = ragged.steps(strength)
    if len(images) == 0:
        return []
    images, pages = ragged.sources(images, torch.uint8), ragged.pages(images, out)
    band = _band(GAUSS_21, _HALO_21, images[0].device)
    _launch(_dodge, images, pages, _TILE, band, factor, scale=factor != _PAPER)
    return pages


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Tones of the U-Net to pages of bytes.

    tones: float16 or float32 (H, W) each, 0 is ink and 1 is paper; beyond is clipped, NaN is ink.
    strength: line strength, 0..4, in steps of 1/256: ink is multiplied by it. 1 changes nothing.
    The rest is as in `binarize`. Raises InputError, OptionsError.
    """
    factor = ragged.steps(strength)
    if len(tones) == 0:
        return []
    tones, pages = ragged.sources(tones, torch.float16, torch.float32), ragged.pages(tones, out)
    dtype = tl.float16 if tones[0].dtype == torch.float16 else tl.float32
    _launch(_compose, tones, pages, _TILE, factor, dtype=dtype, scale=factor != _PAPER)
    return pages


def _launch(
    kernel: Any,
    images: Sequence[Tensor],
    pages: Sequence[Tensor],
    tile: int,
    *arguments: Any,
    **constants: Any,
) -> None:
    """Runs `kernel` on every tile of every image; programs beyond the tiles of theirs do nothing.

    Fusion of a product and a sum is a matter of the kernels: it rounds once instead of twice.
    """
    tiles = max(_tiles(image.shape[0], tile) * _tiles(image.shape[1], tile) for image in images)
    with ragged.launching(images[0].device):
        table = ragged.table(images, pages)
        grid = (tiles, len(images))
        kernel[grid](table, *arguments, **constants, num_warps=4, enable_fp_fusion=False)


def _tiles(length: int, tile: int) -> int:
    return -(-length // tile)


@functools.cache
def _band(kernel: tuple[int, ...], halo: int, device: torch.device) -> Tensor:
    """float16 (_TILE, _BAND_ROW): row i weighs the pixels that the i-th of a tile is the blur of.

    Column 0 is the pixel half a halo before the tile; weights are over 256.
    """
    weights = torch.tensor(kernel).div(256)[torch.tensor(kernel) > 0]
    first = halo // 2 - len(weights) // 2
    band = torch.zeros(_TILE, _BAND_ROW)
    for i in range(_TILE):
        band[i, first + i : first + i + len(weights)] = weights
    return band.half().to(device)


@triton.jit
def _binarize(table, band) -> None:
    top, left, height, width, source, source_stride, page, page_stride = _tile(table, TILE - 2)
    if top >= height:
        return
    near = tl.arange(0, TILE)
    far = tl.arange(0, 16)
    # The median sees the border of the threshold repeated, not the threshold of a border repeated:
    # outside, the blur is centred where the border is.
    rows = _replicate(top - 1 + near, height)
    columns = _replicate(left - 1 + near, width)
    down = band + ((rows - (top - 1)) * BAND_ROW)[:, None]
    across = band + ((columns - (left - 1)) * BAND_ROW)[:, None]
    blur = _blur(
        source,
        source_stride,
        _replicate(top - 9 + near, height),
        _replicate(top - 9 + TILE + far, height),
        _replicate(left - 9 + near, width),
        _replicate(left - 9 + TILE + far, width),
        tl.load(down + near[None, :]),
        tl.load(down + TILE + far[None, :]),
        tl.load(across + near[None, :]),
        tl.load(across + TILE + far[None, :]),
    )
    mean = (blur + ROUND) - ROUND
    gray = tl.load(_at(source, source_stride, rows, columns)).to(tl.float32)
    paper = tl.where(gray - mean > -2, 1.0, 0.0).to(tl.float16)

    apart = near[None, :] - near[:, None]
    three = tl.where((apart >= 0) & (apart <= 2), 1.0, 0.0).to(tl.float16)
    count = tl.dot(tl.dot(three, paper).to(tl.float16), tl.trans(three))
    rows = top + near
    columns = left + near
    bottom = tl.minimum(top + TILE - 2, height)
    inside = _inside(rows, bottom, columns, tl.minimum(left + TILE - 2, width))
    result = tl.where(count > 4.5, 255, 0).to(tl.uint8)
    tl.store(_at(page, page_stride, rows, columns), result, mask=inside)


@triton.jit
def _dodge(table, band, factor, scale: tl.constexpr) -> None:
    top, left, height, width, source, source_stride, page, page_stride = _tile(table, TILE)
    if top >= height:
        return
    near = tl.arange(0, TILE)
    far = tl.arange(0, 32)
    band_near = tl.load(band + (near * BAND_ROW)[:, None] + near[None, :])
    band_far = tl.load(band + (near * BAND_ROW)[:, None] + TILE + far[None, :])
    blur = _blur(
        source,
        source_stride,
        _reflect(top - 16 + near, height),
        _reflect(top - 16 + TILE + far, height),
        _reflect(left - 16 + near, width),
        _reflect(left - 16 + TILE + far, width),
        band_near,
        band_far,
        band_near,
        band_far,
    )
    rounded = tl.floor(blur + 0.5)
    rows = top + near
    columns = left + near
    inside = _inside(rows, height, columns, width)
    gray = tl.load(_at(source, source_stride, rows, columns), mask=inside, other=0).to(tl.float32)
    # Fractions of (512 a + b) / 2b are multiples of 1/510 up to the cap: with half of that added,
    # no error of an approximate division gets across a whole number.
    quotient = tl.fdiv(gray * 256, tl.maximum(rounded, 0.5)) + (0.5 + 1 / 1024)
    levels = tl.where(rounded > 0, tl.minimum(quotient, 255), 0).to(tl.int32)
    if scale:
        levels = _scale_ink(levels, factor)
    tl.store(_at(page, page_stride, rows, columns), levels.to(tl.uint8), mask=inside)


@triton.jit
def _compose(table, factor, dtype: tl.constexpr, scale: tl.constexpr) -> None:
    top, left, height, width, source, source_stride, page, page_stride = _tile(table, TILE)
    if top >= height:
        return
    rows = top + tl.arange(0, TILE)
    columns = left + tl.arange(0, TILE)
    inside = _inside(rows, height, columns, width)
    source = source.to(tl.pointer_type(dtype))
    tones = tl.load(_at(source, source_stride, rows, columns), mask=inside, other=0).to(tl.float32)
    tones = tl.where(tones > 0, tl.minimum(tones, 1.0), 0.0)  # NaN is not greater
    levels = ((tones * 255 + ROUND) - ROUND).to(tl.int32)
    if scale:
        levels = _scale_ink(levels, factor)
    tl.store(_at(page, page_stride, rows, columns), levels.to(tl.uint8), mask=inside)


@triton.jit
def _tile(table, size: tl.constexpr):
    """The program's tile, and the image it is of; `top` is beyond the image if there is none."""
    entry = table + tl.program_id(1) * COLUMNS
    source = tl.load(entry).to(tl.pointer_type(tl.uint8))
    page = tl.load(entry + 1).to(tl.pointer_type(tl.uint8))
    height = tl.load(entry + 2).to(tl.int32)
    width = tl.load(entry + 3).to(tl.int32)
    across = tl.cdiv(width, size)
    top = tl.program_id(0) // across * size
    left = tl.program_id(0) % across * size
    return top, left, height, width, source, tl.load(entry + 4), page, tl.load(entry + 5)


@triton.jit
def _blur(
    source,
    stride,
    rows_near,
    rows_far,
    columns_near,
    columns_far,
    down_near,
    down_far,
    across_near,
    across_far,
):
    """float32 (TILE, TILE), exact: `down` on rows times pixels times `across` on columns."""
    rows = rows_near, rows_far
    high_near, low_near = _sums(source, stride, rows, columns_near, down_near, down_far)
    high_far, low_far = _sums(source, stride, rows, columns_far, down_near, down_far)
    across_near = tl.trans(across_near)
    across_far = tl.trans(across_far)
    blur = tl.dot(high_near, across_near)
    blur = tl.dot(high_far, across_far, blur)
    blur = tl.dot(low_near, across_near, blur)
    return tl.dot(low_far, across_far, blur)


@triton.jit
def _sums(source, stride, rows, columns, down_near, down_far):
    """Pixels of `columns` blurred along them, as the sum of two float16."""
    near = tl.load(_at(source, stride, rows[0], columns)).to(tl.float16)
    far = tl.load(_at(source, stride, rows[1], columns)).to(tl.float16)
    sums = tl.dot(down_far, far, tl.dot(down_near, near))
    high = sums.to(tl.float16)
    return high, (sums - high).to(tl.float16)


@triton.jit
def _scale_ink(levels, factor):
    return 255 - tl.minimum(255, ((255 - levels) * factor + 128) >> 8)


@triton.jit
def _replicate(index, length):
    return tl.minimum(tl.maximum(index, 0), length - 1)


@triton.jit
def _reflect(index, length):
    """Mirrored at the middle of the first and the last pixel, again and again."""
    period = tl.maximum(2 * (length - 1), 1)
    index = tl.abs(index) % period
    return tl.minimum(index, period - index)


@triton.jit
def _at(image, stride, rows, columns):
    return image + (rows.to(tl.int64) * stride)[:, None] + columns[None, :]


@triton.jit
def _inside(rows, bottom, columns, right):
    return (rows < bottom)[:, None] & (columns < right)[None, :]
