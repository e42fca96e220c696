"""The kernels in Triton: the same bytes as `reference`, on NVIDIA GPUs from sm_80 on.

A batch is a sequence of tensors of any sizes on one device. One launch on torch's current stream
works on all of them. The kernels are fastest on images that `tensors.empty` makes. If
TRITON_INTERPRET=1 was set before the import, they run on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from sketchify_rt import tensors
from sketchify_rt.kernels import ragged
from sketchify_rt.kernels import triton_jit as jit
from sketchify_rt.kernels.reference import GAUSS_9, GAUSS_21

_ROWS, _STEP, _BAND_ROW = jit.ROWS.value, jit.STEP.value, jit.BAND_ROW.value
_LONGEST = 8  # steps of a strip. Each strip begins with half a step whose result is not used.
_ENOUGH = 1024  # programs that keep the largest GPU busy; strips get shorter to have as many
# A kernel says itself where a product and a sum are fused, which rounds once instead of twice.
_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
# The limits of registers let four programs run on a multiprocessor, or three of binarize: some
# compute while others wait. Registers are spilled only in steps near a border.
_BINARIZE_OPTIONS = _OPTIONS | {"maxnreg": 168}
_DODGE_OPTIONS = _OPTIONS | {"maxnreg": 128}


def binarize(images: Sequence[Tensor], *, out: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Draw black contours on white; see `reference.binarize`.

    Args:
        images: uint8 (H, W) each, 1 to 65,535 images on one device.
        out: uint8 (H, W) each to write to, the pixels of a row adjacent; None for new tensors.

    Returns:
        uint8 (H, W) each, 0 or 255: `out`, or views of one buffer.
    """
    bands = _bands(GAUSS_9, 8, images[0].device)
    return _launch(jit.binarize, images, out, jit.MEDIAN_ROWS.value, *bands, **_BINARIZE_OPTIONS)


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Draw with a pencil by the colour dodge filter; see `reference.dodge`.

    Args:
        images: uint8 (H, W) each, 1 to 65,535 images on one device.
        strength: Factor of the ink, 0..4, in steps of 1/256.
        out: As in `binarize`.

    Returns:
        uint8 (H, W) each: `out`, or views of one buffer.
    """
    bands = _bands(GAUSS_21, 16, images[0].device)
    return _launch(jit.dodge, images, out, _ROWS, *bands, *_scaled(strength), **_DODGE_OPTIONS)


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Convert tones of the U-Net to bytes; see `reference.compose`.

    Args:
        tones: float16 or float32 (H, W) each, 0 for ink and 1 for paper, 1 to 65,535 tensors of
            one type on one device.
        strength: Factor of the ink, 0..4, in steps of 1/256.
        out: As in `binarize`.

    Returns:
        uint8 (H, W) each: `out`, or views of one buffer.
    """
    dtype = tl.float16 if tones[0].dtype == torch.float16 else tl.float32
    return _launch(jit.compose, tones, out, _ROWS, *_scaled(strength), dtype, **_OPTIONS)


def _scaled(strength: float) -> tuple[int, bool]:
    """Return the factor of the ink in steps of 1/256, and whether it changes anything."""
    factor = round(strength * 256)
    return factor, factor != 256


def _launch(
    kernel: Any,
    images: Sequence[Tensor],
    out: Sequence[Tensor] | None,
    rows: int,
    *arguments: Any,
    **options: Any,
) -> list[Tensor]:
    """Run `kernel` in one launch on every strip of every image, `rows` rows of result each.

    Programs beyond the strips of their image do nothing.
    """
    sources, pages = ragged.prepare(images, out)
    sizes = [(-(-image.shape[0] // rows), -(-image.shape[1] // _STEP)) for image in images]
    all_steps = sum(down * across for down, across in sizes)
    steps = max(1, min(_LONGEST, all_steps // _ENOUGH))
    strips = max(down * -(-across // steps) for down, across in sizes)
    addresses = [
        (*source.shape, source.data_ptr(), source.stride(0), page.data_ptr(), page.stride(0))
        for source, page in zip(sources, pages, strict=True)
    ]
    with ragged.launching(images[0].device):
        table = tensors.constant(addresses, torch.int64, images[0].device)
        kernel[strips, len(images)](table, steps, *arguments, **options)
    return pages


@functools.cache
def _bands(taps: tuple[int, ...], center: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights of a blur as two band matrices, float16 (_ROWS, _BAND_ROW).

    Row i has the weights of the i-th pixel of a tile. `center` is the place of pixel 0 among the
    pixels that are weighted. The first matrix is for sums down the columns and 256 times as large.
    The second is for sums across the rows, in the order of `jit._even_first`.
    """
    weights = torch.tensor([tap for tap in taps if tap], dtype=torch.float16)
    band = torch.zeros(_ROWS, _BAND_ROW, dtype=torch.float16)
    for i in range(_ROWS):
        band[i, center + i - len(weights) // 2 :][: len(weights)] = weights
    swapped = band.view(_ROWS, -1, 2, 2).transpose(2, 3).reshape(band.shape)
    return (band * 256).to(device), swapped.to(device)
