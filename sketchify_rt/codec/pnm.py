"""Portable anymaps, P1 to P6.

Pillow and OpenCV both read them, but neither scales every maxval right, and Pillow does it in a
Python loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.codec.header import truncated

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])"
_FIELD = _SPACE + rb"+(\d{1,10})"
_BITMAP = re.compile(rb"P[14]" + _FIELD * 2 + rb"\s")
_GRAYMAP = re.compile(rb"P[2356]" + _FIELD * 3 + rb"\s")


@dataclass(frozen=True)
class Header:
    """kind: 1..6 of "P1".."P6". maxval: value of white, 1..65535. start: offset of the samples."""

    kind: int
    width: int
    height: int
    maxval: int
    start: int


def read_header(data: bytes) -> Header:
    """Raises ValueError with what is wrong."""
    kind = data[1] - ord("0")
    match = (_BITMAP if kind in (1, 4) else _GRAYMAP).match(data)
    if not match:
        raise ValueError("its header is not complete")
    width, height, *rest = map(int, match.groups())
    maxval = rest[0] if rest else 1
    if not 1 <= maxval <= 65535:
        raise ValueError(f"its maxval is {maxval}, not 1 to 65535")
    return Header(kind, width, height, maxval, match.end())


def read_samples(data: bytes, header: Header) -> NDArray[Any]:
    """Samples as stored, 0 black to `maxval` white: uint8 or uint16, (H, W) or (H, W, 3).

    Raises ValueError if there are fewer than the header promises.
    """
    colours = 3 if header.kind in (3, 6) else 1
    count = header.height * header.width * colours
    if header.kind <= 3:
        samples = _plain(data, header, count)
    elif header.kind == 4:
        stride = -(-header.width // 8)
        packed = _raw(data, header, np.dtype(np.uint8), header.height * stride)
        rows = np.unpackbits(packed.reshape(header.height, stride), axis=1, count=header.width)
        samples = rows ^ 1  # 1 is black in a bitmap
    else:
        samples = _raw(data, header, np.dtype("u1" if header.maxval < 256 else ">u2"), count)
    shape = (header.height, header.width, 3) if colours == 3 else (header.height, header.width)
    return samples.reshape(shape)


def _raw(data: bytes, header: Header, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if len(data) - header.start < count * dtype.itemsize:
        raise truncated(data)
    return np.frombuffer(data, dtype, count, header.start)


def _plain(data: bytes, header: Header, count: int) -> NDArray[Any]:
    """Decimal text; the samples of a bitmap need no space between them."""
    text = re.sub(rb"#[^\r\n]*", b"", data[header.start :])
    if header.kind == 1:
        bits = np.frombuffer(text, np.uint8)
        bits = bits[(bits == ord("0")) | (bits == ord("1"))][:count]
        samples: NDArray[Any] = np.uint8(ord("1")) - bits
    else:
        # not fromstring(count=...), which pads a short text with uninitialised memory
        values = np.fromstring(text, np.int32, sep=" ")[:count]
        samples = values.clip(0, header.maxval).astype(np.uint16)
    if samples.size < count:
        raise truncated(data)
    return samples
