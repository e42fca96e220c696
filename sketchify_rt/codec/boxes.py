"""The boxes of HEIC and JPEG XL (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from sketchify_rt.codec.formats import truncated


def walk(data: bytes, picture: Collection[bytes]) -> Iterator[tuple[bytes, slice]]:
    """Kind of each box of a file, and where its body is; up to bytes that are no box.

    Args:
        data: The file.
        picture: Kinds that no decoder can do without.

    Raises:
        ValueError: One of these goes on beyond the end of the data.
    """
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:  # it is in the next 8 bytes
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        stop = at + length if length else len(data)  # 0: up to the end
        if stop > len(data) and kind in picture:
            raise truncated(data)
        if not start <= stop <= len(data):
            return
        yield kind, slice(start, stop)
        at = stop
