"""Run the U-Net with torch on an NVIDIA GPU (or, slowly, on the CPU, for the tests)."""

from __future__ import annotations

import functools
import queue
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sketchify_rt.errors import ModelError
from sketchify_rt.models import Model
from sketchify_rt.options import Precision
from sketchify_rt.runtime import hints, unet
from sketchify_rt.runtime.cuda_graphs import CapturedModule, Run, Slot

# For what the allocator rounds up, copies of the input and output of a graph, and larger batches,
# for which cuDNN may choose algorithms that need more memory.
_SAFETY = 1.5


class TorchRuntime:
    """A model on one device, for any height and width that are multiples of the model's stride.

    Thread-safe: up to `workers` calls are enqueued at the same time; further calls wait. Work goes
    to the current stream of the calling thread. Nothing waits for the device except the capture of
    a graph, at the second use of a shape by each worker. Within a graph of the caller the operators
    of the model become part of that graph, if the runtime was called before.

    Attributes:
        bytes_per_pixel: Device memory that a call takes at its peak for each pixel of input. Each
            worker keeps as much for its graphs, for the largest of their shapes.
        takes_hint: Whether the model takes a hint.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        workers: int = 1,
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002
    ) -> None:
        """Loads `model` to `device`.

        Args:
            model: The model.
            device: A GPU or the CPU.
            workers: Number of calls at the same time.
            precision: See `Options`. "auto" and "half" are FP16 on a GPU and float32 on the CPU.
            compile: Whether `torch.compile` fuses operators, which takes up to a minute at the
                first call.

        Raises:
            ModelError: The file cannot be read, or it is not a U-Net of this project.
            torch.OutOfMemoryError: There is no memory for the weights.
        """
        on_gpu = device.type == "cuda"
        half = on_gpu and precision in ("auto", "half")
        network = unet.load(model, torch.float16 if half else torch.float32)
        self.takes_hint = model.manifest.takes_hint
        self.bytes_per_pixel = _SAFETY * _peak(network, self.takes_hint, model.manifest.stride)
        network = network.to(device)
        self._name = str(model.path)
        self._device = device
        self._run = functools.partial(_run, _compiled(network, self._name) if compile else network)
        # Last in, first out: with few workers at a time few slots are used, and have graphs. A slot
        # has no reference to the runtime, so that both are freed as soon as nobody needs them.
        self._slots: queue.LifoQueue[Run] = queue.LifoQueue()
        capture = functools.partial(CapturedModule, self._run)
        for _ in range(workers):
            slot = Slot(self._run, capture, torch.cuda.Event()) if on_gpu else self._run  # type: ignore[no-untyped-call]
            self._slots.put(slot)

    def __call__(self, binary: Tensor, hint: Tensor | None = None) -> Tensor:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W) on the runtime's device, 0 for ink and 255 for paper; any
                strides.
            hint: uint8 (N, H / 8, W / 8) on the same device, see `kernels.reference.hint`; None if
                it is not known. A model without a hint takes None only.

        Returns:
            (N, H, W), 0..1, owned by the caller: float32 with precision "fp32" or on the CPU,
            else float16.

        Raises:
            InputError: The model takes no hint, or the hint does not fit the binary.
            ModelError: Compiling fails.
            torch.OutOfMemoryError: Memory is full.
        """
        on_gpu = self._device.type == "cuda"
        placed = torch.cuda.device(self._device) if on_gpu else nullcontext()
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False), placed:
            given = hints.inputs(self._name, self.takes_hint, binary, hint)
            if on_gpu and torch.cuda.is_current_stream_capturing():
                return self._run(*given)  # a graph of the caller cannot contain a graph of ours
            slot = self._slots.get()
            try:
                return slot(*given)
            finally:
                self._slots.put(slot)


def _run(module: Run, *inputs: Tensor) -> Tensor:
    try:
        return module(*inputs)
    except RuntimeError as error:
        # cuDNN tries its algorithms in turn, each with its own memory, and reports only that none
        # is left.
        if "unable to find an engine" in str(error):
            raise torch.OutOfMemoryError(f"cuDNN: not enough memory: {error}") from error
        raise


def _compiled(module: nn.Module, path: str) -> Run:
    from torch._dynamo.exc import TorchDynamoException  # a second to import

    compiled = torch.compile(module)

    def run(*inputs: Tensor) -> Tensor:
        try:
            tones: Tensor = compiled(*inputs)
        except TorchDynamoException as error:
            raise ModelError(
                f"{path}: torch.compile failed: {error}. To fix: install a C++ compiler (and "
                "Triton on a GPU), or run without compile"
            ) from error
        return tones

    return run


def _peak(network: nn.Module, takes_hint: bool, stride: int) -> float:
    """Returns the most bytes per input pixel that are alive at once while the network runs.

    Counted on tensors without memory: it needs no GPU, and other threads do not change it, as they
    change the counters of torch's allocator, which belong to the process.
    """
    weights = {name: weight.to("meta") for name, weight in network.named_buffers()}
    binary = torch.empty((1, 8 * stride, 8 * stride), dtype=torch.uint8, device="meta")
    given = hints.inputs("", takes_hint, binary, None)
    with torch.no_grad(), _Alive() as alive:
        torch.func.functional_call(network, weights, given)
    return float(alive.peak / binary.numel())


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of what operators return, and for how long it is kept."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        operator: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        result = operator(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._storages[reference.cdata] = (reference, storage.nbytes())
        alive = 0
        for key, (reference, size) in list(self._storages.items()):
            if reference.expired():  # type: ignore[no-untyped-call]
                del self._storages[key]
            else:
                alive += size
        self.peak = max(self.peak, alive)
        return result
