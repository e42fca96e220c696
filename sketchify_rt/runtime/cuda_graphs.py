"""CUDA graphs of a module, one for all inputs of the same shapes that come again."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

log = logging.getLogger("sketchify_rt")

# Graphs a slot keeps. A graph holds its input and output, and a few megabytes in the driver; what
# it computes in between lies in memory that the slot's graphs share. Tiles have one shape, and a
# folder of pages few.
GRAPHS = 8

# A shape comes "again" when it was among this many calls before.
_RECENT = 64

# Calls of a shape between a capture that failed and the next try. A capture takes about as long as
# a hundred calls, so a shape whose captures always fail is slowed down by a tenth at most.
_RETRY_AFTER = 1000

_WARM_UPS = 2  # the first loads kernels and chooses algorithms, the second runs them as captured

_NON_BLOCKING = 1  # the driver's CU_STREAM_NON_BLOCKING

# The driver takes captures of several threads; torch's allocator only one at a time.
_capturing = Lock()


def release_memory() -> None:
    """Gives the device back what torch's allocator keeps for later. Waits for a running capture.

    torch.cuda.empty_cache() fails an assertion of torch while any thread captures.
    """
    with _capturing:
        torch.cuda.empty_cache()


class Graph(Protocol):
    """A captured module, for inputs of the captured shapes. All goes to the current stream."""

    def stage(self, *inputs: Tensor) -> None:
        """Takes the next inputs, once the call before has read its own."""

    def __call__(self) -> Tensor:
        """What the module makes of the inputs."""


class Mark(Protocol):
    """A point in the work of a stream; `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Sets it after what the current stream has been given so far."""

    def wait(self) -> None:
        """Makes the current stream wait for it."""

    def synchronize(self) -> None:
        """Waits for it."""


G = TypeVar("G", bound=Graph)

Shapes = tuple[torch.Size, ...]
"""Of all inputs of a call."""


class Slot(Generic[G]):
    """Runs a module: a shape's first use as it is, its second captured, from then on replayed.

    For one call at a time, and its calls run one after the other on the device too, whatever
    streams they are made on, because its graphs share memory: each waits for the mark that the last
    one left. So a slot never takes more memory than one call does. Only the inputs of a graph are
    copied to their place before that, since they have memory of their own.
    """

    def __init__(
        self,
        run: Callable[..., Tensor],
        capture: Callable[[Sequence[Tensor], G | None], G],
        done: Mark,
        limit: int = GRAPHS,
    ) -> None:
        """capture: graph for inputs like those given; may share memory with the graph given."""
        self._run = run
        self._capture = capture
        self._done = done
        self._limit = limit
        self._graphs: OrderedDict[Shapes, G] = OrderedDict()  # the last used is the last
        self._failed: dict[Shapes, int] = {}  # calls left until the next try to capture
        self._recent: deque[Shapes] = deque(maxlen=max(_RECENT, limit))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the module; the result is the caller's own.

        Raises what the module raises. Out of memory, the slot first lets go of its graphs, so that
        a smaller batch finds room.
        """
        try:
            if graph := self._graph(inputs):
                graph.stage(*inputs)
            self._done.wait()
            return graph() if graph else self._run(*inputs)
        except (torch.OutOfMemoryError, MemoryError):
            self.close()
            raise
        finally:
            self._done.record()

    def close(self) -> None:
        """Lets go of the graphs, once they are at rest."""
        self._done.synchronize()
        self._graphs.clear()

    def _graph(self, inputs: tuple[Tensor, ...]) -> G | None:
        shapes = tuple(tensor.shape for tensor in inputs)
        again = shapes in self._recent
        self._recent.append(shapes)
        if shapes in self._graphs:
            self._graphs.move_to_end(shapes)
        elif self._failed.get(shapes, 0) > 0:
            self._failed[shapes] -= 1
        elif again and self._room():
            self._try_to_capture(inputs, shapes)
        return self._graphs.get(shapes)

    def _try_to_capture(self, inputs: tuple[Tensor, ...], shapes: Shapes) -> None:
        beside = next(iter(self._graphs.values()), None)
        self._done.wait()
        try:
            self._graphs[shapes] = self._capture(inputs, beside)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError) as error:
            # Mostly chance: another thread that waits for the whole device breaks a capture.
            self._failed[shapes] = _RETRY_AFTER
            reason = str(error).partition("\n")[0]
            log.warning(
                "no CUDA graph for %s: %s; next try after %d calls",
                ", ".join(str(tuple(shape)) for shape in shapes),
                reason,
                _RETRY_AFTER,
            )

    def _room(self) -> bool:
        """Whether there is room for one more, if need be made by dropping the longest unused.

        Not one in use, though: more shapes than graphs, in turns, would be captured in every call,
        which takes a hundred times as long as running them.
        """
        if len(self._graphs) < self._limit:
            return True
        oldest = next(iter(self._graphs))
        if oldest in self._recent:
            return False
        self._done.synchronize()  # its memory must outlive its work
        del self._graphs[oldest]
        return True


class CapturedModule:
    """A CUDA graph of a module for inputs of one shape each."""

    def __init__(
        self,
        run: Callable[..., Tensor],
        like: Sequence[Tensor],
        beside: CapturedModule | None,
        read: torch.cuda.Event | None = None,
    ) -> None:
        """Captures `run` on the current device, for inputs of the shapes of `like`.

        Intermediate values of `beside`, another graph, take the same memory: never replay the two
        at the same time. Other threads may go on launching and allocating. read: event that `run`
        records as soon as it has read its inputs; None: at its end.
        """
        current = torch.cuda.current_stream()
        stream, side = _streams(current.device_index)
        self._graph = torch.cuda.CUDAGraph()
        # External: recorded in a capture, it is recorded anew by each replay.
        self._read = torch.cuda.Event(external=True)  # type: ignore[no-untyped-call]
        try:
            # The outer context puts the caller's stream back even where the inner one fails to.
            with _capturing, torch.cuda.stream(stream):
                stream.wait_stream(current)
                self._inputs = [
                    tensor.clone(memory_format=torch.contiguous_format) for tensor in like
                ]
                for _ in range(_WARM_UPS):
                    run(*self._inputs)
                # What the warm-up left to the allocator is of no use to the graph, whose memory is
                # its own: it would be held twice.
                torch.cuda.empty_cache()
                with _capture(self._graph, None if beside is None else beside._graph.pool()):
                    self._output = run(*self._inputs)
                    self._records = read is not None and _replay(self._read, read, side, stream)
        finally:
            current.wait_stream(stream)
        self._run = run  # whose memory the graph works in: it goes last

    def stage(self, *inputs: Tensor) -> None:
        """See `Graph`."""
        self._read.wait()
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)

    def __call__(self) -> Tensor:
        """As the module. The result is a copy: the next replay writes over what it was made of."""
        self._graph.replay()
        if not self._records:
            self._read.record()
        return self._output.clone()


@functools.cache
def _streams(device: int) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Two streams to capture on. Nothing else is queued on them: it would be captured as well."""
    return _new_stream(device), _new_stream(device)


def _new_stream(device: int) -> torch.cuda.Stream:
    """A stream of priority 0 that torch never hands out, on `device`, the current one.

    It lives as long as the process.

    - torch.cuda.Stream() hands out the same 32 streams of a priority in turn, so an application may
      use the one that is being captured.
    - Streams of priority -1 are rarely used by others, but torch runs each node of a graph at the
      priority that it was captured with (since pytorch/pytorch 167346, and there is no switch). The
      U-Net would then run before the decoding and encoding of other batches.
    - torch.cuda.cudart().cudaStreamCreate makes a blocking stream, whose capture fails as soon as
      another thread uses the legacy default stream.

    Raises RuntimeError, or OSError where there is no libcuda.so.1.
    """
    torch.cuda.mem_get_info(device)  # makes the device's context current for the driver's call
    handle = ctypes.c_void_p()
    status = ctypes.CDLL("libcuda.so.1").cuStreamCreate(ctypes.byref(handle), _NON_BLOCKING)
    if status:
        raise RuntimeError(f"the driver cannot create a stream: cuStreamCreate returned {status}")
    return torch.cuda.ExternalStream(handle.value, device)  # type: ignore[no-untyped-call]


def _replay(
    event: torch.cuda.Event,
    mark: torch.cuda.Event,
    side: torch.cuda.Stream,
    stream: torch.cuda.Stream,
) -> bool:
    """Makes each replay of the graph being captured on `stream` record `event` where `mark` was.

    `mark` itself is within a capture only a place in the order of things. False where it was not
    recorded in this one.
    """
    side.wait_event(mark)  # which makes the side stream part of the capture
    with torch.cuda.stream(side):
        if not torch.cuda.is_current_stream_capturing():
            return False
        event.record()
    stream.wait_stream(side)
    return True


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, pool: torch.cuda._POOL_HANDLE | None) -> Iterator[None]:
    """Captures the current stream.

    As `torch.cuda.graph`, but it does not wait for all streams of the device before, and a failure
    inside is not hidden by the one of ending a capture that failed.
    """
    pool = pool or torch.cuda.graph_pool_handle()
    with _no_garbage_collection():
        # Of this thread only: in "global" mode no other thread could allocate meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):
                _end(graph, pool)
            raise
        _end(graph, pool)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """For a capture: a CUDA object that is collected meanwhile, such as a graph, breaks it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end(graph: torch.cuda.CUDAGraph, pool: torch.cuda._POOL_HANDLE) -> None:
    try:
        graph.capture_end()
    except RuntimeError:
        # Ending a broken capture, torch's allocator would go on as if it were underway, for as long
        # as the process lives: it would never again give memory back.
        with suppress(RuntimeError):  # a later torch that has done it
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
        raise
