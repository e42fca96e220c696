"""An engine at work on an NVIDIA GPU.

Importing this module raises BackendUnavailable where TensorRT is not installed.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock
from typing import NoReturn, TypeAlias

import torch
from torch import Tensor

from sketchify_rt.errors import DeviceMemoryError, EngineError
from sketchify_rt.runtime import hints
from sketchify_rt.runtime.cuda_graphs import CapturedModule, Slot
from sketchify_rt.tensorrt.library import LOG, checked, trt

INPUT, HINT, OUTPUT = "binary", "hint", "tones"

_ALIGNMENT = 256  # bytes, which TensorRT asks of memory to work in

Shape: TypeAlias = tuple[int, int, int]
"""Number of tiles, and their height and width."""


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one within a `with`."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class TensorRTRuntime:
    """An engine on one GPU, for the shapes of batches that it was built for.

    Thread-safe, and asynchronous, as `TorchRuntime` is.

    Attributes:
        name: For messages.
        least: Smallest shape that the engine takes. Fewer tiles are filled up.
        best: Shape that it is fastest with.
        most: Largest shape that it takes.
        takes_hint: Whether the model has a hint.
        dtype: Of the tones.
        workspace: Bytes of device memory that each worker keeps.
    """

    def __init__(
        self,
        plan: bytes,
        name: str,
        device: torch.device,
        workers: int = 1,
        memory: int | None = None,
    ) -> None:
        """Load a plan.

        Args:
            plan: Of an engine that `cache.read` has checked.
            name: For messages.
            device: The GPU.
            workers: Number of calls at a time; further ones wait their turn.
            memory: Bytes of the device that the engine may work in; None for all. If they do not
                suffice for all workers, there are fewer.

        Raises:
            EngineError: TensorRT refuses the plan.
            DeviceMemoryError: There is no room for it.
            BackendUnavailable: TensorRT does not work here.
        """
        self.name = name
        self._device = device
        # Last in, first out: few workers then keep to few slots, and graphs.
        self._slots: queue.LifoQueue[Slot | _Context] = queue.LifoQueue()
        with on(device):
            engine = _Engine(plan, name, device)
            self.least, self.best, self.most = engine.least, engine.best, engine.most
            self.takes_hint = HINT in engine.inputs
            self.dtype, self.workspace = engine.dtype, engine.workspace
            if memory is not None and self.workspace:
                workers = min(workers, memory // self.workspace)
            if not workers:
                engine.refuse_room()
            for _ in range(workers):
                self._slots.put(engine.slot())

    def __call__(self, binary: Tensor, hint: Tensor | None = None) -> Tensor:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W) on the runtime's device, 0 for ink and 255 for paper, of a shape
                between `least` and `most`; N may be less.
            hint: uint8 (N, H / 8, W / 8) on the same device, see `kernels.reference.hint`; None if
                it is not known. An engine without a hint takes None only.

        Returns:
            (N, H, W), 0..1, of type `dtype`; owned by the caller.

        Raises:
            EngineError: The engine was not built for such a batch, or TensorRT fails.
            InputError: The engine takes no hint, or the hint does not fit the binary.
        """
        with torch.no_grad(), on(self._device):
            given = hints.inputs(self.name, self.takes_hint, binary, hint)
            if binary.is_cuda and torch.cuda.is_current_stream_capturing():
                raise EngineError(
                    f"{self.name}: a TensorRT engine cannot be part of the caller's CUDA graph. "
                    'Use runtime "torch"'
                )
            slot = self._slots.get()
            try:
                return slot(*given)
            finally:
                self._slots.put(slot)

    def __del__(self) -> None:
        # What TensorRT works in must outlive the work.
        with suppress(Exception), on(self._device):
            while True:
                slot = self._slots.get_nowait()
                if isinstance(slot, Slot):
                    slot.close()


class _Engine:
    """A plan on its device, and what its execution contexts have in common.

    The contexts refer to it, but it does not refer to them, nor to the runtime. So all of them are
    freed as soon as nobody needs them, and not by the garbage collector, perhaps within a capture.
    """

    def __init__(self, plan: bytes, name: str, device: torch.device) -> None:
        self._name = name
        self._device = device
        self._creating = Lock()
        # The engine needs it for as long as it lives.
        self._runtime = checked(lambda: trt.Runtime(LOG))
        self._runtime.engine_host_code_allowed = True  # that of version compatible plans
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            lean = "" if hasattr(trt, "Builder") else " without --version-compatible,"
            self.refuse(
                f"{trt.__name__} {trt.__version__} refuses it: it is damaged, or was built{lean} "
                "by another version or for another GPU. To fix: `sketchify-rt build-engine`"
            )
        names = {self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)}
        self.inputs = [name for name in (INPUT, HINT) if name in names]
        shapes: list[Shape] = [
            (count, height, width)
            for count, _, height, width in self._engine.get_tensor_profile_shape(INPUT, 0)
        ]
        self.least, self.best, self.most = shapes
        half = self._engine.get_tensor_dtype(OUTPUT) == trt.float16
        self.dtype = torch.float16 if half else torch.float32
        self.workspace: int = self._engine.device_memory_size_v2

    def refuse(self, what: str) -> NoReturn:
        """Raise what is wrong, with TensorRT's own words, which tell whether memory ran out."""
        words = LOG.words()
        message = f"{self._name}: {what}" + (f" ({words})" if words else "")
        if re.search("out of ?memory|MemoryAllocation|amount of GPU memory", words, re.IGNORECASE):
            raise DeviceMemoryError(message)
        raise EngineError(message)

    def refuse_room(self) -> NoReturn:
        """Raise that there is no room to work in."""
        raise DeviceMemoryError(
            f"{self._name}: it needs {self.workspace / 2**20:.0f} MiB of the GPU's memory to work "
            "in, more than is free or than device_memory allows. Build an engine with a smaller "
            "--batch or --tile"
        )

    def slot(self) -> Slot | _Context:
        """A place for one call at a time, with memory of its own."""
        try:
            size = self.workspace + _ALIGNMENT
            workspace = torch.empty(size, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            self.refuse_room()
        if self._device.type != "cuda":  # in the tests
            return self._context(workspace)

        def capture(like: Sequence[Tensor], beside: CapturedModule | None) -> CapturedModule:
            # A graph stays bound to the context that it was captured from, and to its shapes.
            context = self._context(workspace)
            return CapturedModule(context, like, beside, context.read)

        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        return Slot(self._context(workspace), capture, done)

    def _context(self, workspace: Tensor) -> _Context:
        with self._creating:
            # Its memory is ours: one for all contexts of a slot, and counted by torch.
            by_us = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(by_us)
            if context is None:
                self.refuse("TensorRT gives no execution context")
            LOG.words()
            start = -(-workspace.data_ptr() // _ALIGNMENT) * _ALIGNMENT
            context.set_device_memory(start, self.workspace)
            if words := LOG.words():  # nothing is returned
                raise EngineError(f"{self._name}: TensorRT refuses memory to work in ({words})")
            return _Context(self, context, workspace)


class _Context:
    """An execution context, for one call at a time.

    Attributes:
        read: Event that is recorded when the inputs of a call have been read; None on the CPU.
    """

    def __init__(self, engine: _Engine, context: trt.IExecutionContext, workspace: Tensor) -> None:
        self._context = context
        self._engine = engine  # after its context, as it must outlive that
        self._workspace = workspace
        self.read: torch.cuda.Event | None = None
        if workspace.is_cuda:
            self._stream = torch.cuda.Stream(workspace.device)  # type: ignore[no-untyped-call]
            self.read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.read.record(self._stream)  # before that it has no handle
            if not context.set_input_consumed_event(self.read.cuda_event):
                engine.refuse("TensorRT takes no event for its input")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Paint the tones of a batch, which must not be written over before `read`."""
        given = len(inputs[0])
        missing = max(0, self._engine.least[0] - given)
        if missing:
            inputs = tuple(torch.cat([t, t[:1].expand(missing, -1, -1)]) for t in inputs)
        filled = [tensor.contiguous()[:, None] for tensor in inputs]
        tones = torch.empty(filled[0].shape, dtype=self._engine.dtype, device=filled[0].device)
        context, tensors = self._context, dict(zip(self._engine.inputs, filled, strict=True))
        taken = all(context.set_input_shape(name, tuple(t.shape)) for name, t in tensors.items())
        if not taken or context.infer_shapes():
            least, most, got = self._engine.least, self._engine.most, tuple(inputs[0].shape)
            self._engine.refuse(f"wrong shape of a batch: got {got}, expected {least} to {most}")
        for name, tensor in {**tensors, OUTPUT: tones}.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                self._engine.refuse(f"TensorRT refuses the memory of {name}")
        self._enqueue()
        return tones[:given, 0]

    def _enqueue(self) -> None:
        if self.read is None:
            self._run(0)
            return
        current = torch.cuda.current_stream()
        if current != torch.cuda.default_stream():
            self._run(current.cuda_stream)
            return
        # On the default stream TensorRT would synchronize.
        self._stream.wait_stream(current)
        try:
            self._run(self._stream.cuda_stream)
        finally:
            current.wait_stream(self._stream)

    def _run(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            self._engine.refuse("TensorRT did not run it")
