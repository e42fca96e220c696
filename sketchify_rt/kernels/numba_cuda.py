"""The kernels in numba.cuda: the same functions and bytes as `triton`, where Triton does not work.

The kernels compute in integers. A block loads its part of an image and what surrounds it into
shared memory, blurs the rows and then the columns. Images are packed into one buffer first. If
NUMBA_ENABLE_CUDASIM=1 was set before the import, the kernels run on the CPU.
"""

# numba has no types for what is inside of a kernel.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, attr-defined"

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numba import cuda, int32, uint8
from torch import Tensor

from sketchify_rt import tensors
from sketchify_rt.kernels import ragged, reference

_TILE = 32  # rows and columns of a block
_THREADS = (32, 8)
_FLAT_THREADS = 256
_FEWEST_BLOCKS = 128  # numba warns of fewer

_TAPS_9 = np.array(reference.GAUSS_9, np.int32)
_TAPS_19 = np.array(reference.GAUSS_21[1:-1], np.int32)  # the outermost are 0
_MEAN_SIDE = _TILE + 2  # what the median of a block reads
_GRAY_SIDE_9 = _MEAN_SIDE + 8
_GRAY_SIDE_19 = _TILE + 18


def binarize(images: Sequence[Tensor], *, out: Sequence[Tensor] | None = None) -> list[Tensor]:
    """See `triton.binarize`."""
    return _filter(_binarize, images, out)


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """See `triton.dodge`."""
    return _filter(_dodge, images, out, round(strength * 256))


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """See `triton.compose`."""
    sources, pages = ragged.prepare(tones, out)
    packed = torch.cat([image.flatten() for image in sources]).float()
    result = torch.empty_like(packed, dtype=torch.uint8)
    blocks = -(-packed.numel() // _FLAT_THREADS)
    _launch(_compose, (blocks, 1), _FLAT_THREADS, packed, result, round(strength * 256))
    return _unpack(result, pages)


def _filter(
    kernel: Any, images: Sequence[Tensor], out: Sequence[Tensor] | None, *arguments: int
) -> list[Tensor]:
    sources, pages = ragged.prepare(images, out)
    packed = torch.cat([image.flatten() for image in sources])
    result = torch.empty_like(packed)
    rows, start = [], 0
    for image in images:
        rows.append((start, *image.shape))
        start += image.numel()
    tiles = max(-(-height // _TILE) * -(-width // _TILE) for _, height, width in rows)
    table = tensors.constant(rows, torch.int64, packed.device)
    _launch(kernel, (tiles, len(images)), _THREADS, packed, result, table, *arguments)
    return _unpack(result, pages)


def _unpack(result: Tensor, pages: list[Tensor]) -> list[Tensor]:
    for part, page in zip(result.split([page.numel() for page in pages]), pages, strict=True):
        page.copy_(part.view(page.shape))
    return pages


def _launch(kernel: Any, grid: tuple[int, int], threads: Any, *arguments: Tensor | int) -> None:
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    on_gpu = device.type == "cuda"
    with ragged.launching(device), cuda.gpus[device.index] if on_gpu else nullcontext():
        if not on_gpu:
            views = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
            kernel[grid, threads](*views)
            return
        stream = cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)
        views = [cuda.as_cuda_array(a) if isinstance(a, Tensor) else a for a in arguments]
        at_least = (max(grid[0], -(-_FEWEST_BLOCKS // grid[1])), grid[1])
        kernel[at_least, threads, stream](*views)


@cuda.jit
def _binarize(packed, result, table):
    taps = cuda.const.array_like(_TAPS_9)
    gray = cuda.shared.array((_GRAY_SIDE_9, _GRAY_SIDE_9), uint8)
    sums = cuda.shared.array((_GRAY_SIDE_9, _MEAN_SIDE), int32)
    paper = cuda.shared.array((_MEAN_SIDE, _MEAN_SIDE), uint8)
    start, height, width, top, left = _block(table)
    if top >= height:
        return
    _load(gray, packed, start, height, width, top - 5, left - 5, _replicate)

    # Outside of the image the threshold repeats its border, which is not the threshold of the
    # border repeated: there the blur is centred where the border is.
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_9, cuda.blockDim.y):
        for x in range(cuda.threadIdx.x, _MEAN_SIDE, cuda.blockDim.x):
            first = _replicate(left - 1 + x, width) - left + 1
            sums[y, x] = _weighted(taps, gray, y, first, 0, 1)
    cuda.syncthreads()

    for y in range(cuda.threadIdx.y, _MEAN_SIDE, cuda.blockDim.y):
        first = _replicate(top - 1 + y, height) - top + 1
        for x in range(cuda.threadIdx.x, _MEAN_SIDE, cuda.blockDim.x):
            total = _weighted(taps, sums, first, x, 1, 0)
            mean = (total + 32767 + ((total >> 16) & 1)) >> 16  # halves to even
            center = gray[first + 4, _replicate(left - 1 + x, width) - left + 5]
            paper[y, x] = 1 if int32(center) - mean > -2 else 0
    cuda.syncthreads()

    x = cuda.threadIdx.x
    for y in range(cuda.threadIdx.y, _TILE, cuda.blockDim.y):
        if top + y < height and left + x < width:
            count = int32(0)
            for i in range(3):
                for j in range(3):
                    count += paper[y + i, x + j]
            result[start + (top + y) * width + left + x] = 255 if count >= 5 else 0


@cuda.jit
def _dodge(packed, result, table, factor):
    taps = cuda.const.array_like(_TAPS_19)
    gray = cuda.shared.array((_GRAY_SIDE_19, _GRAY_SIDE_19), uint8)
    sums = cuda.shared.array((_GRAY_SIDE_19, _TILE), int32)
    start, height, width, top, left = _block(table)
    if top >= height:
        return
    _load(gray, packed, start, height, width, top - 9, left - 9, _reflect)

    x = cuda.threadIdx.x
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_19, cuda.blockDim.y):
        sums[y, x] = _weighted(taps, gray, y, x, 0, 1)
    cuda.syncthreads()

    for y in range(cuda.threadIdx.y, _TILE, cuda.blockDim.y):
        if top + y < height and left + x < width:
            blurred = (_weighted(taps, sums, y, x, 1, 0) + 32768) >> 16
            twice = max(2 * blurred, 1)
            quotient = min(255, (512 * int32(gray[y + 9, x + 9]) + blurred) // twice)
            level = quotient if blurred > 0 else 0
            result[start + (top + y) * width + left + x] = _scale_ink(level, factor)


@cuda.jit
def _compose(packed, result, factor):
    i = cuda.grid(1)
    if i < packed.size:
        tone = packed[i]
        # NaN is not greater
        clipped = min(tone, np.float32(1)) if tone > 0 else np.float32(0)
        result[i] = _scale_ink(int32(round(clipped * np.float32(255))), factor)


@cuda.jit(device=True)
def _block(table):
    """Start, height and width of the block's image, and the block's first row and column.

    The row is beyond the height if there is nothing to do for the block.
    """
    start, height, width = table[cuda.blockIdx.y]
    across = (width + _TILE - 1) // _TILE
    top = cuda.blockIdx.x // across * _TILE
    left = cuda.blockIdx.x % across * _TILE
    return start, height, width, top, left


@cuda.jit(device=True)
def _load(gray, packed, start, height, width, top, left, border):
    """Fill shared memory with the pixels from row `top` and column `left` on."""
    for y in range(cuda.threadIdx.y, gray.shape[0], cuda.blockDim.y):
        row = start + border(top + y, height) * width
        for x in range(cuda.threadIdx.x, gray.shape[1], cuda.blockDim.x):
            gray[y, x] = packed[row + border(left + x, width)]
    cuda.syncthreads()


@cuda.jit(device=True)
def _weighted(taps, values, y, x, down, across):
    """Sum of the values from row `y` and column `x` on, one step down or across for each tap."""
    total = int32(0)
    for i in range(taps.size):
        total += taps[i] * int32(values[y + i * down, x + i * across])
    return total


@cuda.jit(device=True)
def _scale_ink(level, factor):
    return 255 - min(255, ((255 - level) * factor + 128) >> 8)


@cuda.jit(device=True)
def _replicate(index, length):
    return min(max(index, 0), length - 1)


@cuda.jit(device=True)
def _reflect(index, length):
    """Mirror at the middle of the first and the last pixel, again and again."""
    period = max(2 * (length - 1), 1)
    index = abs(index) % period
    return min(index, period - index)
