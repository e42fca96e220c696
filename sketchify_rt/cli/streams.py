"""Standard output and standard error, which may be full or closed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

import click


class Stream(io.FileIO):
    """A standard stream that fails at most once, and after that drops what is written.

    Python writes what is left in its buffers when it ends. Without this class it fails then, too.

    Attributes:
        error: The error of the first write that failed; None if all have succeeded.
    """

    def __init__(self, descriptor: int, silent: bool) -> None:
        """Makes a stream.

        Args:
            descriptor: Its file descriptor, which stays open.
            silent: Raise no error for the first write that fails either.
        """
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None
        self._silent = silent

    def write(self, data: Any, /) -> int:
        """Writes bytes, or drops them after an error.

        Args:
            data: The bytes.

        Returns:
            Number of bytes written or dropped.

        Raises:
            OSError: They cannot be written, for the first time.
        """
        try:
            if self.error is None:
                return super().write(data)
        except OSError as error:
            self.error = error
            if not self._silent:
                raise
        return memoryview(data).nbytes


def replace() -> Stream:
    """Replaces the standard streams by ones that can write any text.

    Returns:
        Standard output, for `finish`.
    """
    # A closed standard output is opened again, or else the next file that is opened would take its
    # descriptor. It is opened for reading, so that writing fails.
    output = os.open(os.devnull, os.O_RDONLY) if sys.stdout is None else sys.stdout.fileno()
    stream = Stream(output, silent=False)
    sys.stdout = _text(stream, sys.stdout)
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)  # for the same reason; libraries in C write to it
    else:  # nobody can be told that it cannot be written
        sys.stderr = _text(Stream(sys.stderr.fileno(), silent=True), sys.stderr)
    return stream


def finish(output: Stream) -> bool:
    """Writes what is left in the buffer of standard output, and tells if there was an error.

    Args:
        output: Standard output.

    Returns:
        Whether everything was written.
    """
    with contextlib.suppress(OSError):  # `output` keeps it
        sys.stdout.flush()
    if output.error is None:
        return True
    if output.error.errno != errno.EPIPE:  # a reader, such as `head`, has read enough
        closed = output.error.errno == errno.EBADF
        why = "it is closed" if closed else output.error.strerror
        click.echo(
            f"Error: standard output cannot be written: {why}. Redirect it to another place",
            err=True,
        )
    return False


def _text(stream: Stream, before: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        getattr(before, "encoding", "utf-8"),
        "backslashreplace",
        line_buffering=getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )
