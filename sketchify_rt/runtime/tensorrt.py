"""Run the U-Net as a TensorRT engine on an NVIDIA GPU.

Importing this module raises BackendUnavailable where TensorRT is not installed.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock
from typing import NoReturn

import torch
from torch import Tensor

from sketchify_rt.errors import DeviceMemoryError, EngineError
from sketchify_rt.runtime import hints
from sketchify_rt.runtime.cuda_graphs import CapturedModule, Slot
from sketchify_rt.runtime.tensorrt_log import LOG, checked, trt

INPUT, HINT, OUTPUT = "binary", "hint", "tones"

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
    most; fewer tiles than the least are filled up. takes_hint: whether it was built of a model with
    a hint. dtype: of the tones. workspace: bytes of device memory that each worker keeps.
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
        bytes of the device that it may work in, None for all there are; where they do not suffice
        for all workers there are fewer, and calls wait their turn.

        Raises EngineError where TensorRT refuses it, DeviceMemoryError where there is no room for
        it, and BackendUnavailable where TensorRT does not work here.
        """
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.name = name
        self._device = device
        # Last in, first out: few workers then keep to few slots, and graphs.
        self._slots: queue.LifoQueue[Slot[CapturedModule] | _Context] = queue.LifoQueue()
        with on(device):
            engine = _Engine(plan, name, device, host_code)
            self.least, self.best, self.most = engine.least, engine.best, engine.most
            self.takes_hint = HINT in engine.inputs
            self.dtype, self.workspace = engine.dtype, engine.workspace
            if memory is not None and self.workspace:
                workers = min(workers, memory // self.workspace)
            if not workers:
                engine.refuse_room(self.workspace)
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
            (N, H, W), 0..1, float16, or float32 from an engine of precision "fp32"; owned by the
            caller.

        Raises:
            EngineError: The batch is not one it was built for, or TensorRT fails.
            InputError: The engine takes no hint, or the hint does not fit the binary.
        """
        if binary.device != self._device or binary.dtype != torch.uint8:
            what = f"{binary.dtype} on {binary.device}"
            raise EngineError(f"{self.name}: it takes uint8 on {self._device}, not {what}")
        with torch.no_grad(), on(self._device):
            given = hints.inputs(self.name, self.takes_hint, binary, hint)
            if binary.is_cuda and torch.cuda.is_current_stream_capturing():
                raise EngineError(
                    f"{self.name}: it cannot be part of a graph of the caller's; runtime torch can"
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

    The contexts know it, not it them, nor anything the runtime that has them: so all go at once
    when nobody needs them any more, and not when Python looks for circles, within a capture maybe.
    """

    def __init__(self, plan: bytes, name: str, device: torch.device, host_code: bool) -> None:
        self._name = name
        self._device = device
        self._creating = Lock()
        # The engine needs it for as long as it lives.
        self._runtime = checked(lambda: trt.Runtime(LOG))
        self._runtime.engine_host_code_allowed = host_code
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            lean = "" if hasattr(trt, "Builder") else " without --version-compatible,"
            self.refuse(
                f"{trt.__name__} {trt.__version__} refuses it: it is damaged, or was built{lean} "
                "by another version or for another GPU; `sketchify-rt build-engine` builds one"
            )
        names = {self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)}
        if names - {HINT} != {INPUT, OUTPUT}:
            self.refuse(
                f"its tensors are {', '.join(sorted(names))}; they must be {INPUT}, {OUTPUT}, and "
                f"{HINT} if the model takes one"
            )
        self.inputs = [name for name in (INPUT, HINT) if name in names]
        shapes: list[Shape] = [
            (count, height, width)
            for count, _, height, width in self._engine.get_tensor_profile_shape(INPUT, 0)
        ]
        self.least, self.best, self.most = shapes
        given = {self._engine.get_tensor_dtype(name) for name in self.inputs}
        made = self._engine.get_tensor_dtype(OUTPUT)
        types = {trt.float16: torch.float16, trt.float32: torch.float32}
        if given != {trt.uint8} or made not in types:
            of = ", ".join(sorted(map(str, given)))
            self.refuse(f"it makes {made} of {of}; it must make HALF or FLOAT of UINT8")
        self.dtype = types[made]
        self.workspace: int = self._engine.device_memory_size_v2

    def refuse(self, what: str) -> NoReturn:
        """Raises what is wrong, with TensorRT's own words, by which it may be a want of memory."""
        words = LOG.words()
        message = f"{self._name}: {what}" + (f" ({words})" if words else "")
        if re.search("out of ?memory|MemoryAllocation|amount of GPU memory", words, re.IGNORECASE):
            raise DeviceMemoryError(message)
        raise EngineError(message)

    def refuse_room(self, size: int) -> NoReturn:
        """Raises that there is no room for that many bytes."""
        raise DeviceMemoryError(
            f"{self._name}: it needs {size / 2**20:.0f} MiB of the GPU's memory to work in, more "
            "than is free, or than device_memory allows; build one of a smaller --batch or --tile"
        )

    def slot(self) -> Slot[CapturedModule] | _Context:
        """Where one call at a time works, in memory of its own."""
        size = self.workspace + _ALIGNMENT
        try:
            workspace = torch.empty(size, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            self.refuse_room(size)
        if self._device.type != "cuda":  # in the tests
            return self._context(workspace)

        def capture(like: Sequence[Tensor], beside: CapturedModule | None) -> CapturedModule:
            # A graph stays bound to the context that it was captured of, and to its shapes.
            context = self._context(workspace)
            return CapturedModule(context, like, beside, context.read)

        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        return Slot(self._context(workspace), capture, done)

    def _context(self, workspace: Tensor) -> _Context:
        with self._creating:
            # Its memory is ours: one for all contexts of a slot, within torch's count.
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
    """An execution context; for one call at a time.

    read: recorded when the inputs of a call have been read; None on the processor.
    """

    def __init__(self, engine: _Engine, context: trt.IExecutionContext, workspace: Tensor) -> None:
        self._context = context
        self._engine = engine  # after its context, as it must outlive that
        self._workspace = workspace
        self._stream: torch.cuda.Stream | None = None
        self.read: torch.cuda.Event | None = None
        if workspace.is_cuda:
            self._stream = torch.cuda.Stream(workspace.device)  # type: ignore[no-untyped-call]
            self.read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.read.record(self._stream)  # before that it has no handle
            if not context.set_input_consumed_event(self.read.cuda_event):
                engine.refuse("TensorRT takes no event for its input")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Tones of a batch, which must not be written over before `read`."""
        given = len(inputs[0])
        filled = [tensor.contiguous()[:, None] for tensor in self._filled(*inputs)]
        binary = filled[0]
        tones = torch.empty(binary.shape, dtype=self._engine.dtype, device=binary.device)
        context, tensors = self._context, dict(zip(self._engine.inputs, filled, strict=True))
        taken = all(context.set_input_shape(name, tuple(t.shape)) for name, t in tensors.items())
        if not taken or context.infer_shapes():
            shape = tuple(binary[:, 0].shape)
            self._engine.refuse(f"a batch of {shape} is not one it was built for")
        for name, tensor in {**tensors, OUTPUT: tones}.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                self._engine.refuse(f"TensorRT refuses the memory of {name}")
        self._enqueue()
        return tones[:given, 0]

    def _filled(self, *inputs: Tensor) -> Sequence[Tensor]:
        binary = inputs[0]
        least, most = self._engine.least, self._engine.most
        sizes = zip(least[1:], binary.shape[1:], most[1:], strict=True)
        if len(binary) > most[0] or not all(low <= n <= high for low, n, high in sizes):
            self._engine.refuse(f"it takes batches of {least} to {most}, not {tuple(binary.shape)}")
        missing = least[0] - len(binary)
        if missing <= 0:
            return inputs
        return [torch.cat([tensor, tensor[:1].expand(missing, -1, -1)]) for tensor in inputs]

    def _enqueue(self) -> None:
        """On the current stream; beside the default one, on which TensorRT synchronizes."""
        if self._stream is None:
            self._run(0)
            return
        current = torch.cuda.current_stream()
        if current != torch.cuda.default_stream():
            self._run(current.cuda_stream)
            return
        self._stream.wait_stream(current)
        try:
            self._run(self._stream.cuda_stream)
        finally:
            current.wait_stream(self._stream)

    def _run(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            self._engine.refuse("TensorRT did not run it")
