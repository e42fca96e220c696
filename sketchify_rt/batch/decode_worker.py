"""The main program of a process of `decoders`: it decodes files and pages, one by one."""

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

# What decoders leak, or keep in fragments, ends with the process; pixels are given back by then.
_GROWTH = 256 << 20  # bytes
# Of the shared memory: getting pages anew takes 0.5 ms for 992 x 1401.
_KEPT = 32 << 20  # bytes

TAKEN = 1
"""Position of the shared memory from which on the process has taken its job."""


@dataclass(frozen=True)
class Tools:
    """What a process has. codec: as `codec.cpu.decode`; memory: descriptor of the shared one."""

    codec: Callable[[File, int], Gray]
    max_pixels: int
    memory: int


class Job(Protocol):
    """What a process is asked to do, as a pickle."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(self, tools: Tools) -> tuple[Gray | None, Any]:
        """Luma (H, W), if that is asked for, and what there is besides, which can be pickled.

        Called in the process. Raises SketchifyError.
        """


@dataclass(frozen=True)
class FileJob:
    """Decode the file whose bytes, so many, lie in the shared memory; gives its `Extras` too."""

    name: str
    size: int
    encoding: Encoding

    def run(self, tools: Tools) -> tuple[Gray, Extras | None]:
        """Raises DecodeError."""
        from sketchify_rt.codec.header import File

        with open(tools.memory, "rb", closefd=False) as file:
            file.seek(0)
            image = File(self.name, file.read(self.size))
        luma = tools.codec(image, tools.max_pixels)
        if self.encoding.plain:
            return luma, None
        from sketchify_rt.codec import extras

        return luma, extras.read(image, self.encoding)


Answer: TypeAlias = "tuple[tuple[int, int] | None, Any] | SketchifyError"
"""Height and width of the luma, which lies in the shared memory, and what there is besides."""


@dataclass(frozen=True)
class Reply:
    """What became of a job. last: whether the process ends with it, since it has grown."""

    answer: Answer
    last: bool


def put(memory: int, data: bytes | memoryview) -> None:
    """Copy `data` into the shared memory."""
    rest, at = memoryview(data).cast("B"), 0
    while at < len(rest):  # a call moves 2 GiB at most
        at += os.pwrite(memory, rest[at:], at)


def take(memory: int, shape: tuple[int, int]) -> Gray:
    """Luma from the shared memory, of which little is kept."""
    luma = np.empty(shape, np.uint8)
    rest, at = luma.data.cast("B"), 0
    while at < len(rest):
        at += os.preadv(memory, [rest[at:]], at)
    if os.fstat(memory).st_size > _KEPT:
        os.ftruncate(memory, 0)
    return luma


def main() -> None:
    """Arguments: descriptors of socket, memory and lifeline, codec, max_pixels, MiB or 0."""
    import fcntl
    import resource

    link, memory, lifeline = Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    module, function = sys.argv[4].split(":")
    max_pixels, mebibytes = int(sys.argv[5]), int(sys.argv[6])

    for number in (signal.SIGINT, signal.SIGTERM):  # whether to stop is the parent's business
        signal.signal(number, signal.SIG_IGN)
    # While it decodes, this process may never look at the socket again. So the kernel is asked to
    # tell of the parent's end by a signal, and the default action of that is to end as well. By a
    # pipe of its own, since the socket has the kernel send such a signal for what comes over it,
    # sometimes after that was read.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it ended just before
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
        link.send(Reply(answer, last))
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
    """Bytes of memory that this process has mapped, and those of them that are in use."""
    mapped, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(mapped) * mmap.PAGESIZE, int(resident) * mmap.PAGESIZE
