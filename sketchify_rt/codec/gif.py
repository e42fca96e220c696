"""The header of a GIF, and whether it is an animation.

Pillow, asked for these, makes pictures as large as the file says it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sketchify_rt.codec.formats import Header

_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B


def probe(data: bytes) -> Header:
    """Reads the header of a GIF; `header.probe` calls it.

    Raises:
        struct.error: It is too short.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    frames = _frames(data)
    left, top, across, down = next(frames, (0, 0, 0, 0))
    # A frame that reaches beyond the screen enlarges it, as in Pillow.
    size = max(width, left + across), max(height, top + down)
    return Header("GIF", *size, animated=next(frames, None) is not None)


def _frames(data: bytes) -> Iterator[tuple[int, ...]]:
    """Left, top, width and height of each; whatever follows the signature."""
    at = 13 + _palette(data, 10)
    while at < len(data) and data[at] != _END:
        if data[at] == _EXTENSION:
            at += 2
        elif data[at] == _FRAME:
            yield struct.unpack("<4H", data[at + 1 : at + 9].ljust(8, b"\0"))
            at += 11 + _palette(data, at + 9)
        else:  # no block, which decoders pass over
            at += 1
            continue
        while at < len(data) and data[at]:  # parts, each behind its length
            at += 1 + data[at]
        at += 1


def _palette(data: bytes, at: int) -> int:
    """Bytes of the palette that the flags at an offset tell of."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
