"""CUDA graphs of a module: one for each shape of its inputs that is used again."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock

import torch
from torch import Tensor

log = logging.getLogger("sketchify_rt")

# Graphs of a slot. A graph holds its inputs and its output, and a few megabytes in the driver.
# Intermediate values are in memory that all graphs of the slot share. Tiles have one shape, and the
# pages of a folder have few.
GRAPHS = 8

# A shape is used again if it was among this many last calls.
_RECENT = 64

# Calls of a shape between a failed capture and the next try. A capture takes about as long as a
# hundred calls, so a shape whose captures always fail is slowed down by a tenth at most.
_RETRY_AFTER = 1000

_WARM_UPS = 2  # the first run loads kernels and chooses algorithms, the second is like the capture

_NON_BLOCKING = 1  # the driver's CU_STREAM_NON_BLOCKING

# Several threads may capture with the driver, but only one with torch's allocator.
_capturing = Lock()


def release_memory() -> None:
    """Return the unused memory of torch's allocator to the device. Waits for a running capture.

    torch.cuda.empty_cache() fails an assertion of torch while any thread captures.
    """
    with _capturing:
        torch.cuda.empty_cache()


Run = Callable[..., Tensor]
"""A module, from inputs to an output."""

Shapes = tuple[torch.Size, ...]
"""The shapes of all inputs of a call."""


class Slot:
    """Runs a module: directly at the first use of a shape, as a CUDA graph from the second one on.

    One call at a time. Its calls also run one after the other on the device, on whatever streams
    they are made, because the graphs share memory: each call waits for the event that the last one
    recorded. So a slot never takes more memory than one call does. Only the inputs of a graph are
    copied before that, since they have their own memory.
    """

    def __init__(
        self,
        run: Run,
        capture: Callable[[Sequence[Tensor], CapturedModule | None], CapturedModule],
        done: torch.cuda.Event,
    ) -> None:
        """Make a slot without graphs.

        Args:
            run: The module.
            capture: Captures a graph for inputs of the shapes of those given. It may share the
                memory of the graph given.
            done: The event that each call records.
        """
        self._run = run
        self._capture = capture
        self._done = done
        self._graphs: OrderedDict[Shapes, CapturedModule] = OrderedDict()  # the last used is last
        self._failed: dict[Shapes, int] = {}  # calls until the next try to capture
        self._recent: deque[Shapes] = deque(maxlen=_RECENT)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the module.

        Args:
            inputs: Tensors on the current device.

        Returns:
            The output, owned by the caller.

        Raises:
            torch.OutOfMemoryError: Memory is full. The slot has freed its graphs, so a smaller
                batch may fit.
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
        """Wait for the last call, and free the graphs."""
        self._done.synchronize()
        self._graphs.clear()

    def _graph(self, inputs: tuple[Tensor, ...]) -> CapturedModule | None:
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
            # Mostly by chance: another thread that waits for the whole device breaks a capture.
            self._failed[shapes] = _RETRY_AFTER
            log.warning(
                "no CUDA graph for %s: %s; next try after %d calls",
                ", ".join(str(tuple(shape)) for shape in shapes),
                str(error).partition("\n")[0],
                _RETRY_AFTER,
            )

    def _room(self) -> bool:
        """Make room for one more graph, if needed by freeing the one that is unused for longest.

        A graph in use is not freed: if more shapes than graphs took turns, every call would capture
        one, which takes a hundred times as long as to run the module.
        """
        if len(self._graphs) < GRAPHS:
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
        run: Run,
        like: Sequence[Tensor],
        beside: CapturedModule | None,
        read: torch.cuda.Event | None = None,
    ) -> None:
        """Capture `run` on the current device. Other threads may go on launching and allocating.

        Args:
            run: The module.
            like: Inputs; the graph is for their shapes.
            beside: A graph whose memory for intermediate values is used. Do not replay the two at
                the same time.
            read: The event that `run` records as soon as it has read its inputs; None: at its end.

        Raises:
            OSError, RuntimeError: The capture fails.
        """
        current = torch.cuda.current_stream()
        stream, side = _streams(current.device_index)
        self._graph = torch.cuda.CUDAGraph()
        # External: recorded in a capture, it is recorded anew by each replay.
        self._read = torch.cuda.Event(external=True)  # type: ignore[no-untyped-call]
        try:
            # The outer context restores the caller's stream even if the inner one fails to.
            with _capturing, torch.cuda.stream(stream):
                stream.wait_stream(current)
                self._inputs = [
                    tensor.clone(memory_format=torch.contiguous_format) for tensor in like
                ]
                for _ in range(_WARM_UPS):
                    run(*self._inputs)
                # The graph has its own memory and cannot use what the warm-up left to the
                # allocator.
                torch.cuda.empty_cache()
                with _capture(self._graph, None if beside is None else beside._graph.pool()):
                    self._output = run(*self._inputs)
                    self._records = read is not None and _replay(self._read, read, side, stream)
        finally:
            current.wait_stream(stream)
        self._run = run  # the graph works in its memory, so it is freed last

    def stage(self, *inputs: Tensor) -> None:
        """Copy the next inputs, after the last call has read its own.

        Args:
            inputs: Of the captured shapes.
        """
        self._read.wait()
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)

    def __call__(self) -> Tensor:
        """Run the module on the staged inputs. The output is a copy, owned by the caller."""
        self._graph.replay()
        if not self._records:
            self._read.record()
        return self._output.clone()


@functools.cache
def _streams(device: int) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Return two streams for captures alone, since all work on them is captured."""
    return _new_stream(device), _new_stream(device)


def _new_stream(device: int) -> torch.cuda.Stream:
    """Return a stream of priority 0 on `device`, the current one, that torch never hands out.

    It lives as long as the process.

    - torch.cuda.Stream() hands out the same 32 streams of a priority in turn, so an application may
      use the stream on which we capture.
    - Streams of priority -1 are rarely used by others. But torch runs each node of a graph at the
      priority of its capture (since pytorch/pytorch 167346, without a switch). So the U-Net would
      run before the decoding and encoding of other batches.
    - torch.cuda.cudart().cudaStreamCreate makes a blocking stream. Its capture fails as soon as
      another thread uses the legacy default stream.

    Raises RuntimeError, or OSError if there is no libcuda.so.1.
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
    """Make each replay of the graph being captured on `stream` record `event` where `mark` was.

    Within a capture `mark` itself is only a position. Returns False if it was not recorded in this
    capture.
    """
    side.wait_event(mark)  # the side stream becomes part of the capture
    with torch.cuda.stream(side):
        if not torch.cuda.is_current_stream_capturing():
            return False
        event.record()
    stream.wait_stream(side)
    return True


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, pool: torch.cuda._POOL_HANDLE | None) -> Iterator[None]:
    """Capture the current stream.

    Other than `torch.cuda.graph` this does not wait for all streams of the device before, and the
    error of a failed capture is not replaced by the one of ending it.
    """
    pool = pool or torch.cuda.graph_pool_handle()
    collecting = gc.isenabled()
    gc.disable()  # a capture fails if a CUDA object such as a graph is collected meanwhile
    try:
        # For this thread only: in "global" mode no other thread could allocate meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):
                _end(graph, pool)
            raise
        _end(graph, pool)
    finally:
        if collecting:
            gc.enable()


def _end(graph: torch.cuda.CUDAGraph, pool: torch.cuda._POOL_HANDLE) -> None:
    try:
        graph.capture_end()
    except RuntimeError:
        # After a broken capture torch's allocator goes on as if the capture were running, and never
        # gives memory back until the process ends.
        with suppress(RuntimeError):  # later versions of torch may have done this
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
        raise
