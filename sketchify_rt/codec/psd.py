"""Photoshop's files, PSD and PSB: the flattened picture in them.

Pillow reads 8 bits a sample alone, inverts bitmaps, and takes any fourth channel for alpha.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketchify_rt.codec.formats import Header, truncated
from sketchify_rt.image import bands

_BITMAP, _GRAY, _INDEXED, _RGB, _CMYK, _DUOTONE = 0, 1, 2, 3, 4, 8
_COLOURS = {_BITMAP: 1, _GRAY: 1, _INDEXED: 1, _RGB: 3, _CMYK: 4, _DUOTONE: 1}
_MODES = {7: "multichannel", 9: "Lab colour"}
_BITS = {_BITMAP: (1,), _INDEXED: (8,), _DUOTONE: (8,)}
_RAW, _PACKED = 0, 1
# Image resources
_RESOLUTION, _PROFILE, _VERSION, _EXIF, _XMP = 1005, 1039, 1057, 1058, 1060
_REMEDY = "export it as PNG"


class _Layout(NamedTuple):
    """Numbers of the header, and where the sections are, each without its length."""

    version: int
    channels: int
    height: int
    width: int
    bits: int
    mode: int
    palette: slice
    resources: slice
    layers: slice


def _layout(data: bytes) -> _Layout:
    version, channels, height, width, bits, mode = struct.unpack_from(">4xH6xHIIHH", data)
    palette = _section(data, 26, 4)
    resources = _section(data, palette.stop, 4)
    layers = _section(data, resources.stop, 4 * version)  # of a PSB they may be over 4 GiB
    if layers.stop + 2 > len(data):
        raise truncated(data)
    return _Layout(version, channels, height, width, bits, mode, palette, resources, layers)


def _section(data: bytes, at: int, size: int) -> slice:
    """The section whose length stands at an offset, in so many bytes."""
    start = at + size
    return slice(start, start + int.from_bytes(data[at:start], "big"))


def probe(data: bytes) -> Header:
    """Reads the header of a PSD; `header.probe` calls it.

    Raises:
        ValueError: It is truncated, or of a kind that is not read.
    """
    layout = _layout(data)
    mode, bits = layout.mode, layout.bits
    colours = _COLOURS.get(mode)
    if colours is None or bits not in _BITS.get(mode, (8, 16)):
        kind = _MODES.get(mode, f"mode {mode}")
        raise ValueError(f"{f'{bits} bits a sample' if colours else kind}; {_REMEDY}")
    if layout.channels < colours:
        raise ValueError(f"corrupt data, {layout.channels} of {colours} channels")
    found = dict(_resources(data[layout.resources]))
    if found.get(_VERSION, b"")[4:5] == b"\0":
        raise ValueError(f"it has no flattened picture, only layers; {_REMEDY}")
    density = found.get(_RESOLUTION, b"")
    dpi = None
    if len(density) >= 12:
        across, down = struct.unpack_from(">I4xI", density)
        dpi = across / 2**16, down / 2**16
    return Header(
        "PSD",
        layout.width,
        layout.height,
        colours,
        bits,
        alpha=layout.channels > colours and _is_transparent(data[layout.layers], layout.version),
        upright=True,
        exif=found.get(_EXIF, b""),
        xmp=found.get(_XMP, b""),
        profile=found.get(_PROFILE, b""),
        dpi=dpi,
    )


def _resources(section: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each."""
    at = 0
    while section[at : at + 4] == b"8BIM" and at + 12 <= len(section):
        number, name = struct.unpack_from(">HB", section, at + 4)
        start = at + 6 + (name + 2) // 2 * 2  # the name and its length, to an even number
        length = int.from_bytes(section[start : start + 4], "big")
        yield number, section[start + 4 : start + 4 + length]
        at = start + 4 + (length + 1) // 2 * 2


def _is_transparent(layers: bytes, version: int) -> bool:
    """Whether the channel behind the colours is transparency, and not a stored selection.

    That is told by a negative number of layers; in a file of 16 bits it is in a block of its own.
    """
    size = 4 * version
    at = size
    if not int.from_bytes(layers[:size], "big"):
        block = layers.find(b"8BIMLr16")
        if block < 0:
            return False
        at = block + 8 + size
    return layers[at : at + 1] >= b"\x80"


def read(data: bytes, found: Header) -> tuple[NDArray[Any], int]:
    """The flattened picture, 0 black, and the value of white.

    Photoshop composites it on white and stores its alpha besides; others store it as it is.

    Args:
        data: The file.
        found: Its header.

    Returns:
        uint8 or uint16; (H, W), (H, W, 3) RGB, or (H, W, 4) RGBA with straight alpha.

    Raises:
        ValueError: The file is truncated or damaged.
    """
    layout = _layout(data)
    pixels = _colours(data, layout)
    white = int(np.iinfo(pixels.dtype).max)
    if not found.alpha:
        return pixels, white
    alpha = _plane(data, layout, found.channels)
    if _is_on_white(pixels, alpha):
        return pixels, white
    planes = [pixels] if pixels.ndim == 3 else [pixels] * 3
    return np.dstack([*planes, alpha]), white


def read_alpha(data: bytes, found: Header) -> tuple[NDArray[Any], int]:
    """Alpha of a file whose header tells that it has one, and the value of opaque: (H, W)."""
    plane = _plane(data, _layout(data), found.channels)
    return plane, int(np.iinfo(plane.dtype).max)


def _colours(data: bytes, layout: _Layout) -> NDArray[Any]:
    """(H, W) gray or (H, W, 3) RGB."""
    first = _plane(data, layout, 0)
    if layout.mode == _INDEXED:
        stored = data[layout.palette]
        if len(stored) < 768:
            raise ValueError("corrupt data, its palette is not complete; get a whole copy of it")
        palette = np.frombuffer(stored, np.uint8, 768).reshape(3, 256)
        pixels = np.empty((*first.shape, 3), np.uint8)
        for rows in bands(first.shape):
            pixels[rows] = palette.T[first[rows]]
        return pixels
    if _COLOURS[layout.mode] == 1:
        return first
    pixels = np.empty((*first.shape, 3), first.dtype.newbyteorder("="))
    pixels[..., 0] = first
    for index in (1, 2):
        pixels[..., index] = _plane(data, layout, index)
    if layout.mode == _CMYK:  # stored inverted: 0 is all of the ink
        white = np.iinfo(pixels.dtype).max
        black = _plane(data, layout, 3).astype(pixels.dtype)
        for rows in bands(black.shape):
            key = cv2.merge([black[rows]] * 3)
            pixels[rows] = cv2.multiply(pixels[rows], key, scale=1 / white)
    return pixels


def _is_on_white(pixels: NDArray[Any], alpha: NDArray[Any]) -> bool:
    """Whether all colours are as light as compositing on white makes them at least."""
    white = int(np.iinfo(pixels.dtype).max)
    tolerance = white // 128
    for rows in bands(alpha.shape):
        darkest = pixels[rows] if pixels.ndim == 2 else pixels[rows].min(axis=2)
        if (darkest.astype(np.int32) + alpha[rows] + tolerance < white).any():
            return False
    return True


def _plane(data: bytes, layout: _Layout, index: int) -> NDArray[Any]:
    """The samples of one channel, (H, W); of 1 bit as 0 and 255."""
    height, width = layout.height, layout.width
    row = -(-width * layout.bits // 8)
    at = layout.layers.stop + 2
    compression = int.from_bytes(data[at - 2 : at], "big")
    if compression == _RAW:
        if len(data) < at + layout.channels * height * row:
            raise truncated(data)
        samples = np.frombuffer(data, np.uint8, height * row, at + index * height * row)
    elif compression == _PACKED:
        # Before the rows, the bytes of each.
        count, kind = layout.channels * height, ">u2" if layout.version == 1 else ">u4"
        behind = at + count * np.dtype(kind).itemsize
        if len(data) < behind:
            raise truncated(data)
        lengths = np.frombuffer(data, kind, count, at).reshape(layout.channels, height)
        start, stop = (
            behind + int(lengths[:channel].sum(dtype=np.int64)) for channel in (index, index + 1)
        )
        if len(data) < stop:
            raise truncated(data)
        rows = Image.frombytes("L", (row, height), data[start:stop], "packbits", "L")
        samples = np.asarray(rows)
    else:
        raise ValueError(f"compression {compression}; {_REMEDY}")
    samples = samples.reshape(height, row)
    if layout.bits == 1:  # 1 is black
        return (np.unpackbits(samples, axis=1, count=width) ^ 1) * np.uint8(255)
    return samples.view(">u2") if layout.bits == 16 else samples
