"""What follows a convolution in torch: bias and ReLU, in one pass over memory."""

# Triton has no types for what is inside of a kernel.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048  # 16 values a thread of four warps: two loads of 16 bytes in FP16


def finish(sums: Tensor, bias: Tensor, rectify: bool) -> None:
    """Adds a bias to each channel, and rectifies where asked to, in place.

    sums: (N, C, H, W), dense, channels last. bias: (C,) of the same type. Rounds as torch does,
    which would pass over `sums` twice, and so move twice the bytes of a 3x3 convolution itself.
    """
    size = sums.numel()
    _finish[(triton.cdiv(size, _BLOCK),)](sums, bias, size, bias.numel(), rectify, _BLOCK)


@triton.jit
def _finish(
    sums, bias, size, channels: tl.constexpr, rectify: tl.constexpr, block: tl.constexpr
) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    value = tl.load(sums + at, mask=inside) + tl.load(bias + at % channels)
    if rectify:
        value = tl.maximum(value, 0.0)
    tl.store(sums + at, value, mask=inside)
