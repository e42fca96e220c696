"""Keeps sketches that wait for the ones before them in an archive."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

_MEMORY = 16 << 20  # bytes: some 40 pages of 992 x 1401


class Waiting:
    """Results by their place in the archive. Not thread-safe.

    Above 16 MiB they are kept in a file without a name, beside the archive. Otherwise, while one
    page takes long, all pages behind it would be in memory.
    """

    def __init__(self, folder: Path, memory: int = _MEMORY) -> None:
        """Keeps nothing yet.

        Args:
            folder: For the file. It must exist when `put` is first called.
            memory: Bytes to keep in memory.
        """
        self._folder, self._free = folder, memory
        self._results: dict[int, bytes | tuple[int, int] | None] = {}  # or where in the file
        self._file: IO[bytes] | None = None

    def __contains__(self, place: int) -> bool:
        return place in self._results

    def put(self, place: int, data: bytes | None) -> None:
        """Keeps a result, None for a page that failed. Raises OSError."""
        if data is None or len(data) <= self._free:
            self._free -= len(data or b"")
            self._results[place] = data
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (see `clear`)
        self._results[place] = self._file.seek(0, 2), len(data)
        self._file.write(data)

    def pop(self, place: int) -> bytes | None:
        """Returns a result and forgets it. Raises OSError."""
        kept = self._results.pop(place)
        if not isinstance(kept, tuple):
            self._free += len(kept or b"")
            return kept
        assert self._file is not None  # noqa: S101 (`put` opened it)
        start, size = kept
        self._file.seek(start)
        data = self._file.read(size)
        if not self._results:
            self._file.truncate(0)
        return data

    def clear(self) -> None:
        """Forgets all results."""
        self._results.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
