"""Portable anymaps, P1 to P6.

Pillow and OpenCV both read them, but neither scales every maxval right, and Pillow does it in a
Python loop.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.codec.formats import truncated

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])"
_FIELD = _SPACE + rb"+(\d{1,10})"
_BITMAP = re.compile(rb"P[14]" + _FIELD * 2 + rb"\s")
_GRAYMAP = re.compile(rb"P[2356]" + _FIELD * 3 + rb"\s")


def read_header(data: bytes) -> tuple[int, int, int, int, int]:
    """What the header of a file says.

    Returns:
        1 to 6, of "P1" to "P6"; pixels across; pixels down; the value of white, 1 to 65535; the
        offset of the samples.

    Raises:
        ValueError: it is not complete, or its maxval is out of range.
    """
    kind = data[1] - ord("0")
    match = (_BITMAP if kind in (1, 4) else _GRAYMAP).match(data)
    if not match:
        raise ValueError("its header is not complete")
    width, height, maxval = (*map(int, match.groups()), 1)[:3]
    if not 1 <= maxval <= 65535:
        raise ValueError(f"its maxval must be 1 to 65535, got {maxval}")
    return kind, width, height, maxval, match.end()


def read(data: bytes) -> tuple[NDArray[Any], int]:
    """Samples as they are stored, 0 black, and the value of white.

    Returns:
        uint8, or uint16 where white is above 255; (H, W) or (H, W, 3) RGB.

    Raises:
        ValueError: there are fewer than the header says.
    """
    kind, width, height, maxval, start = read_header(data)
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    count = math.prod(shape)
    dtype = np.dtype(np.uint8 if maxval < 256 else ">u2")
    samples: NDArray[Any]
    if kind <= 3:
        text = re.sub(rb"#[^\r\n]*", b"", data[start:])
        if kind == 1:  # its samples need no space between them, and 1 is black
            bits = np.frombuffer(text, np.uint8)
            samples = ord("1") - bits[(bits == ord("0")) | (bits == ord("1"))]
        else:
            # not fromstring(count=...), which pads a short text with uninitialised memory
            samples = np.fromstring(text, np.int32, sep=" ").clip(0, maxval).astype(dtype)
        if samples.size < count:
            raise truncated(data)
        return samples[:count].reshape(shape), maxval
    stored = height * -(-width // 8) if kind == 4 else count
    if len(data) - start < stored * dtype.itemsize:
        raise truncated(data)
    samples = np.frombuffer(data, dtype, stored, start)
    if kind == 4:  # 8 pixels a byte, and 1 is black
        samples = np.unpackbits(samples.reshape(height, -1), axis=1, count=width) ^ 1
    return samples.reshape(shape), maxval
