"""Parts of a file as a file, without a copy."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, BinaryIO


def opened(data: bytes, parts: Sequence[slice]) -> BinaryIO:
    """Parts of a file as one that can be read, without a copy of it. parts: start and stop."""
    return io.BufferedReader(_Parts(data, parts))


class _Parts(io.RawIOBase):
    def __init__(self, data: bytes, parts: Sequence[slice]) -> None:
        self._data, self._parts, self._at = memoryview(data), parts, 0
        sizes = (part.stop - part.start for part in parts)
        self._offsets = list(accumulate(sizes, initial=0))  # of each part; and the size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # from its start and where it is; nobody asks for its end
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not 0 <= self._at < self._offsets[-1]:
            return 0
        index = bisect_right(self._offsets, self._at) - 1
        part = self._parts[index]
        start = part.start + self._at - self._offsets[index]
        found = self._data[start : min(part.stop, start + len(buffer))]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
