"""The main program of a process of `decoders`. It decodes files and pages one by one."""

from __future__ import annotations

import importlib
import mmap
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from sketchify_rt.errors import DecodeError, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.options import Encoding

if TYPE_CHECKING:
    from sketchify_rt.codec.extras import Extras
    from sketchify_rt.codec.header import File

# Bytes by which a process may grow, through leaks or fragmented memory, before it is replaced.
_GROWTH = 256 << 20
# Bytes of shared memory that are kept. Without them 992 x 1401 pixels take 0.5 ms more.
_KEPT = 32 << 20

TAKEN = 1
"""Position in the shared memory that tells that the process has taken its job."""


@dataclass(frozen=True)
class Tools:
    """What a process has for its jobs.

    Attributes:
        codec: A function like `codec.cpu.decode`.
        max_pixels: Largest number of pixels of a picture.
        memory: Descriptor of the shared memory.
    """

    codec: Callable[[File, int], Gray]
    max_pixels: int
    memory: int


class Job(Protocol):
    """What a process has to do. It is pickled."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(self, tools: Tools) -> tuple[Gray | None, Any]:
        """Does the work, in the process.

        Returns:
            Luma (H, W) or None, and anything else that can be pickled.

        Raises:
            SketchifyError: It failed.
        """


@dataclass(frozen=True)
class FileJob:
    """Decodes a file.

    Attributes:
        name: Its name.
        size: The number of its bytes, which are in the shared memory.
        encoding: Of the result.
    """

    name: str
    size: int
    encoding: Encoding
    colours: bool = False

    def run(self, tools: Tools) -> tuple[Gray, Extras | None]:
        """Returns luma, and what the encoding keeps besides it. Raises DecodeError."""
        from sketchify_rt.codec.header import File

        with open(tools.memory, "rb", closefd=False) as file:
            file.seek(0)
            image = File(self.name, file.read(self.size))
        luma = tools.codec(image, tools.max_pixels)
        if self.encoding.plain and not self.colours:
            return luma, None
        from sketchify_rt.codec import extras

        return luma, extras.read(image, self.encoding, self.colours)


Answer: TypeAlias = "tuple[tuple[int, int] | None, Any] | SketchifyError"
"""Height and width of the luma, which is in the shared memory, and what there is besides."""


def put(memory: int, data: bytes | memoryview) -> None:
    """Copies data into the shared memory."""
    rest, at = memoryview(data).cast("B"), 0
    while at < len(rest):  # a call moves 2 GiB at most
        at += os.pwrite(memory, rest[at:], at)


def take(memory: int, shape: tuple[int, int]) -> Gray:
    """Copies luma out of the shared memory, and frees the memory if it is large."""
    luma = np.empty(shape, np.uint8)
    rest, at = luma.data.cast("B"), 0
    while at < len(rest):
        at += os.preadv(memory, [rest[at:]], at)
    if os.fstat(memory).st_size > _KEPT:
        os.ftruncate(memory, 0)
    return luma


def main() -> None:
    """Serves jobs until the parent ends.

    Arguments of the program: descriptors of the socket, the shared memory and the lifeline; codec;
    max_pixels; MiB of memory, 0 for no limit.
    """
    import fcntl
    import resource

    link, memory, lifeline = Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    module, function = sys.argv[4].split(":")
    max_pixels, mebibytes = int(sys.argv[5]), int(sys.argv[6])

    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides when to stop
        signal.signal(number, signal.SIG_IGN)
    # A decoder that hangs never looks at the socket again. So the kernel sends SIGIO when the
    # parent ends, which ends this process. That needs a pipe of its own: for the socket the kernel
    # would send the signal with each message, sometimes after the message was read.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it has ended already
        return

    tools = Tools(getattr(importlib.import_module(module), function), max_pixels, memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
    if mebibytes:
        limit = _pages()[0] + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    first = _pages()[1]
    link.send(None)  # ready
    while True:
        try:
            job: Job = link.recv()
        except (EOFError, ConnectionError):  # the parent has closed it, or ended
            return
        os.lseek(memory, TAKEN, os.SEEK_SET)
        answer = _answer(job, tools)
        last = _pages()[1] - first > _GROWTH
        link.send((answer, last))
        if last:
            return


def _answer(job: Job, tools: Tools) -> Answer:
    try:
        luma, more = job.run(tools)
        if luma is None:
            return None, more
        put(tools.memory, np.ascontiguousarray(luma).data)
    except SketchifyError as error:
        return error
    except MemoryError:
        return DecodeError(job.name, "needs more memory than its decoder may use")
    return (luma.shape[0], luma.shape[1]), more


def _pages() -> tuple[int, int]:
    """Returns the bytes of memory that this process has mapped, and those that are in use."""
    mapped, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(mapped) * mmap.PAGESIZE, int(resident) * mmap.PAGESIZE
