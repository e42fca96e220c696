"""The kernels in numba.cuda, for where Triton is not to be had: the same functions, the same bytes.

Plain integers in shared memory: a block loads its part of an image with what surrounds it, blurs
rows, then columns. Images are packed into one buffer first. Where NUMBA_ENABLE_CUDASIM=1 was set
before the import, on the processor.
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
    """As `triton.binarize`."""
    return _filter(_binarize, images, out)


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """As `triton.dodge`."""
    return _filter(_dodge, images, out, ragged.steps(strength))


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """As `triton.compose`."""
    factor = ragged.steps(strength)
    if len(tones) == 0:
        return []
    tones, pages = ragged.sources(tones, torch.float16, torch.float32), ragged.pages(tones, out)
    packed = torch.cat([image.flatten() for image in tones]).float()
    result = torch.empty_like(packed, dtype=torch.uint8)
    blocks = -(-packed.numel() // _FLAT_THREADS)
    _launch(_compose, (blocks, 1), _FLAT_THREADS, packed, result, factor)
    return _unpack(result, pages)


def _filter(
    kernel: Any, images: Sequence[Tensor], out: Sequence[Tensor] | None, *arguments: int
) -> list[Tensor]:
    if len(images) == 0:
        return []
    images, pages = ragged.sources(images, torch.uint8), ragged.pages(images, out)
    packed = torch.cat([image.flatten() for image in images])
    result = torch.empty_like(packed)
    rows, start = [], 0
    for image in images:
        rows.append((start, *image.shape))
        start += image.numel()
    tiles = max(-(-height // _TILE) * -(-width // _TILE) for _, height, width in rows)
    table = ragged.upload(rows, packed.device)
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
    start = table[cuda.blockIdx.y, 0]
    height = table[cuda.blockIdx.y, 1]
    width = table[cuda.blockIdx.y, 2]
    across = (width + _TILE - 1) // _TILE
    top = cuda.blockIdx.x // across * _TILE
    left = cuda.blockIdx.x % across * _TILE
    if top >= height:
        return
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_9, cuda.blockDim.y):
        row = start + _replicate(top - 5 + y, height) * width
        for x in range(cuda.threadIdx.x, _GRAY_SIDE_9, cuda.blockDim.x):
            gray[y, x] = packed[row + _replicate(left - 5 + x, width)]
    cuda.syncthreads()

    # Outside of the image the threshold repeats its border, which is not the threshold of the
    # border repeated: there the blur is centred where the border is.
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_9, cuda.blockDim.y):
        for x in range(cuda.threadIdx.x, _MEAN_SIDE, cuda.blockDim.x):
            first = _replicate(left - 1 + x, width) - left + 1
            total = int32(0)
            for i in range(9):
                total += taps[i] * int32(gray[y, first + i])
            sums[y, x] = total
    cuda.syncthreads()

    for y in range(cuda.threadIdx.y, _MEAN_SIDE, cuda.blockDim.y):
        first = _replicate(top - 1 + y, height) - top + 1
        for x in range(cuda.threadIdx.x, _MEAN_SIDE, cuda.blockDim.x):
            total = int32(0)
            for i in range(9):
                total += taps[i] * sums[first + i, x]
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
    start = table[cuda.blockIdx.y, 0]
    height = table[cuda.blockIdx.y, 1]
    width = table[cuda.blockIdx.y, 2]
    across = (width + _TILE - 1) // _TILE
    top = cuda.blockIdx.x // across * _TILE
    left = cuda.blockIdx.x % across * _TILE
    if top >= height:
        return
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_19, cuda.blockDim.y):
        row = start + _reflect(top - 9 + y, height) * width
        for x in range(cuda.threadIdx.x, _GRAY_SIDE_19, cuda.blockDim.x):
            gray[y, x] = packed[row + _reflect(left - 9 + x, width)]
    cuda.syncthreads()

    x = cuda.threadIdx.x
    for y in range(cuda.threadIdx.y, _GRAY_SIDE_19, cuda.blockDim.y):
        total = int32(0)
        for i in range(19):
            total += taps[i] * int32(gray[y, x + i])
        sums[y, x] = total
    cuda.syncthreads()

    for y in range(cuda.threadIdx.y, _TILE, cuda.blockDim.y):
        if top + y < height and left + x < width:
            total = int32(0)
            for i in range(19):
                total += taps[i] * sums[y + i, x]
            blurred = (total + 32768) >> 16
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
def _scale_ink(level, factor):
    return 255 - min(255, ((255 - level) * factor + 128) >> 8)


@cuda.jit(device=True)
def _replicate(index, length):
    return min(max(index, 0), length - 1)


@cuda.jit(device=True)
def _reflect(index, length):
    """Mirrored at the middle of the first and the last pixel, again and again."""
    period = max(2 * (length - 1), 1)
    index = abs(index) % period
    return min(index, period - index)
