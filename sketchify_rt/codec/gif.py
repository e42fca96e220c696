"""The blocks of a GIF."""

from __future__ import annotations

_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B


def is_animated(data: bytes) -> bool:
    """Whether a second frame begins. Pillow, asked for that, makes pictures as large as the first.

    Args:
        data: A file that begins as GIF; what follows may be anything.
    """
    at, frames = 13 + _palette(data, 10), 0
    while at < len(data):
        if data[at] == _EXTENSION:
            at += 2
        elif data[at] == _FRAME:
            frames += 1
            if frames == 2:
                return True
            at += 11 + _palette(data, at + 9)
        elif data[at] == _END:
            return False
        else:  # no block, which decoders pass over
            at += 1
            continue
        while at < len(data) and data[at]:  # parts, each behind its length
            at += 1 + data[at]
        at += 1
    return False


def _palette(data: bytes, at: int) -> int:
    """Bytes of the palette that the flags at an offset tell of."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
