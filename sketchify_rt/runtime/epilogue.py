"""What follows a convolution in torch: bias and ReLU, in one pass over memory."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048  # 16 values a thread of four warps: two loads of 16 bytes in FP16


def finish(sums: Tensor, bias: Tensor, rectify: bool) -> None:
    """Adds a bias to each channel, and rectifies where asked to, in place.

    sums: (N, C, H, W), dense, channels last. bias: (C,) of the same type. torch would pass over
    `sums` twice, once of them without vector loads: at 64 channels that moves as many bytes as the
    convolution itself. Rounds as torch does.
    """
    size = sums.numel()
    _finish[(triton.cdiv(size, _BLOCK),)](
        sums, bias, size, CHANNELS=bias.numel(), RECTIFY=rectify, BLOCK=_BLOCK
    )


@triton.jit  # type: ignore[untyped-decorator]
def _finish(
    sums: Any,
    bias: Any,
    size: Any,
    CHANNELS: tl.constexpr,  # noqa: N803
    RECTIFY: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(sums + at, mask=inside) + tl.load(bias + at % CHANNELS)
    if RECTIFY:
        value = tl.maximum(value, 0.0)
    tl.store(sums + at, value, mask=inside)
