"""Run the U-Net as a TensorRT engine on an NVIDIA GPU.

Importing this module raises BackendUnavailable where TensorRT is not installed.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock

import torch
from torch import Tensor

from sketchify_rt.errors import DeviceMemoryError, EngineError
from sketchify_rt.runtime.cuda_graphs import CapturedModule, Slot
from sketchify_rt.runtime.tensorrt_log import Log, checked, trt

INPUT, OUTPUT = "binary", "tones"

_ALIGNMENT = 256  # bytes, which TensorRT asks of memory to work in

Shape = tuple[int, int, int]
"""Tiles, and their height and width."""


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class TensorRTRuntime:
    """An engine on one GPU, for the shapes of tiles that it was built for.

    Thread-safe, and asynchronous, as `TorchRuntime` is.

    name: for messages. least, best, most: shapes it takes at least, is fastest with, and takes at
    most; fewer tiles than the least are filled up. workspace: bytes of device memory that each
    worker keeps.
    """

    def __init__(
        self,
        plan: bytes,
        name: str,
        device: torch.device,
        workers: int = 1,
        host_code: bool = False,
        memory: int | None = None,
    ) -> None:
        """Load a plan, which `runtime.engine_cache` has checked, to `device`; name: for messages.

        host_code: run code that the plan brings along, as a version compatible one does. memory:
        bytes of the device that it may work in, None for all there are.

        Raises EngineError where TensorRT refuses it, DeviceMemoryError where there is no room for
        it, and BackendUnavailable where TensorRT does not work here.
        """
        self.name = name
        self._device = device
        self._log = Log()
        self._creating = Lock()
        with on(self._device):
            # The engine needs the runtime for as long as it lives.
            self._runtime = checked(lambda: trt.Runtime(self._log), self._log)
            self._runtime.engine_host_code_allowed = host_code
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                lean = "" if hasattr(trt, "Builder") else " without --version-compatible,"
                raise self.error(
                    f"{trt.__name__} {trt.__version__} refuses it: it is damaged, or was built"
                    f"{lean} by another version or for another GPU; `sketchify-rt build-engine` "
                    "builds one"
                )
            self.least, self.best, self.most = self._profile()
            self.dtype = self._types()
            self.workspace: int = self._engine.device_memory_size_v2
            if memory is not None and self.workspace * workers > memory:
                raise self._no_room(workers)
            # Last in, first out: few workers then keep to few slots, and graphs.
            self._slots: queue.LifoQueue[Callable[[Tensor], Tensor]] = queue.LifoQueue()
            for _ in range(workers):
                self._slots.put(self._slot())

    def __call__(self, binary: Tensor) -> Tensor:
        """Paint tones.

        binary: uint8 (N, H, W) on the runtime's device, 0 for ink and 255 for paper, of a shape
        between `least` and `most`; N may be less. Returns (N, H, W), 0..1, float16, or float32 from
        an engine of precision "fp32"; owned by the caller. Raises EngineError.
        """
        if binary.device.type != self._device.type or binary.dtype != torch.uint8:
            raise self.error(f"it takes uint8 on {self._device}, not {binary.dtype}")
        with torch.no_grad(), on(self._device):
            if binary.is_cuda and torch.cuda.is_current_stream_capturing():
                raise self.error("it cannot be part of a graph of the caller's; runtime torch can")
            slot = self._slots.get()
            try:
                return slot(binary)
            finally:
                self._slots.put(slot)

    def __del__(self) -> None:
        # An engine, and its memory, must outlive the work that it was given.
        with suppress(Exception), on(self._device):
            torch.cuda.synchronize(self._device)

    def error(self, what: str) -> EngineError:
        """What failed, with TensorRT's own words."""
        words = self._log.words()
        return EngineError(f"{self.name}: {what}" + (f" ({words})" if words else ""))

    def _no_room(self, workers: int) -> DeviceMemoryError:
        return DeviceMemoryError(
            f"{self.name}: it needs {self.workspace * workers / 2**20:.0f} MiB of the GPU's "
            "memory, more than is free, or than device_memory allows; build one of a smaller "
            "--batch or --tile"
        )

    def _profile(self) -> tuple[Shape, Shape, Shape]:
        names = {
            self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)
        }
        if names != {INPUT, OUTPUT}:
            raise self.error(f"its tensors are {', '.join(sorted(names))}, not {INPUT}, {OUTPUT}")
        least, best, most = (
            (count, height, width)
            for count, _, height, width in self._engine.get_tensor_profile_shape(INPUT, 0)
        )
        return least, best, most

    def _types(self) -> torch.dtype:
        """Of the output."""
        given, made = (self._engine.get_tensor_dtype(name) for name in (INPUT, OUTPUT))
        types = {trt.float16: torch.float16, trt.float32: torch.float32}
        if given != trt.uint8 or made not in types:
            raise self.error(f"it makes {made} of {given}; it must make HALF or FLOAT of UINT8")
        return types[made]

    def _slot(self) -> Callable[[Tensor], Tensor]:
        size = self.workspace + _ALIGNMENT
        try:
            workspace = torch.empty(size, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError as error:
            raise self._no_room(1) from error
        if self._device.type != "cuda":  # in the tests
            return self._context(workspace, None)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

        def capture(binary: Tensor, beside: CapturedModule | None) -> CapturedModule:
            # A graph stays bound to the context that it was captured of, and to its shapes.
            context = self._context(workspace, stream)
            return CapturedModule(context, binary, stream, beside, context.read)

        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        return Slot(self._context(workspace, stream), capture, done)

    def _context(self, workspace: Tensor, stream: torch.cuda.Stream | None) -> _Context:
        with self._creating:
            # Its memory is ours: one for all contexts of a slot, within torch's count.
            by_us = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(by_us)
            if context is None:
                raise self.error("TensorRT gives no execution context")
            self._log.words()
            context.set_device_memory(
                -(-workspace.data_ptr() // _ALIGNMENT) * _ALIGNMENT, self.workspace
            )
            if words := self._log.words():  # nothing is returned
                raise EngineError(f"{self.name}: TensorRT refuses memory to work in ({words})")
            return _Context(self, context, workspace, stream)


class _Context:
    """An execution context; for one call at a time.

    read: recorded on the stream in use when a call's input has been read; None on the processor.
    """

    def __init__(
        self,
        owner: TensorRTRuntime,
        context: trt.IExecutionContext,
        workspace: Tensor,
        stream: torch.cuda.Stream | None,
    ) -> None:
        self._error = owner.error
        self._least, self._most, self._dtype = owner.least, owner.most, owner.dtype
        self._context = context
        self._workspace = workspace
        self._stream = stream
        self.read: torch.cuda.Event | None = None
        if stream is not None:
            self.read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.read.record(stream)  # before that it has no handle
            if not context.set_input_consumed_event(self.read.cuda_event):
                raise self._error("TensorRT takes no event for its input")

    def __call__(self, binary: Tensor) -> Tensor:
        """Tones of a batch, which must not be written over before `read`."""
        given = len(binary)
        binary = self._filled(binary).contiguous()
        shape = (len(binary), 1, *binary.shape[1:])
        tones = torch.empty(shape, dtype=self._dtype, device=binary.device)
        context = self._context
        if not context.set_input_shape(INPUT, shape) or context.infer_shapes():
            raise self._error(f"a batch of {tuple(binary.shape)} is not one it was built for")
        for name, tensor in (INPUT, binary), (OUTPUT, tones):
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise self._error(f"TensorRT refuses the memory of {name}")
        self._enqueue()
        return tones[:given, 0]

    def _filled(self, binary: Tensor) -> Tensor:
        missing = self._least[0] - len(binary)
        if missing > 0:
            return torch.cat([binary, binary[:1].expand(missing, -1, -1)])
        sizes = zip(self._least[1:], binary.shape[1:], self._most[1:], strict=True)
        if len(binary) > self._most[0] or not all(low <= n <= high for low, n, high in sizes):
            raise self._error(
                f"it takes batches of {self._least} to {self._most}, not {tuple(binary.shape)}"
            )
        return binary

    def _enqueue(self) -> None:
        """On a stream of its own, since TensorRT synchronizes on the default one."""
        if self._stream is None:
            self._run(0)
            return
        current = torch.cuda.current_stream()
        if current == self._stream:  # as during a capture
            self._run(current.cuda_stream)
            return
        self._stream.wait_stream(current)
        self._run(self._stream.cuda_stream)
        current.wait_stream(self._stream)

    def _run(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._error("TensorRT did not run it")
