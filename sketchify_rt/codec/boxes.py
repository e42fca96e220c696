"""The boxes of HEIC and JPEG XL (ISO/IEC 14496-12)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from sketchify_rt.codec.formats import truncated

_KIND = re.compile(rb"[\x20-\x7e]{4}")


def walk(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Kind of each box of a file, and where its body is; up to bytes that are no box.

    Raises:
        ValueError: A box goes on beyond the end of the data.
    """
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if not _KIND.fullmatch(kind):
            return
        start = at + 8
        if length == 1:  # it is in the next 8 bytes
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        stop = at + length if length else len(data)  # 0: up to the end
        if stop > len(data):
            raise truncated(data)
        if stop < start:
            raise ValueError("corrupt data, no box where one should begin")
        yield kind, slice(start, stop)
        at = stop
