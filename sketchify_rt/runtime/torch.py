"""Run the U-Net with torch on an NVIDIA GPU (or, slowly, on the CPU, for the tests)."""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable
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
from sketchify_rt.runtime.cuda_graphs import CapturedModule, Slot

Run = Callable[..., Tensor]
"""The U-Net, or its graphs: of a binary, and a hint if the model takes one."""

# What cuDNN takes for itself, what the allocator rounds up, and the copies that a graph's input and
# output are. Not measured.
_SAFETY = 1.5


class TorchRuntime:
    """A model on one device. Any height and width that are multiples of the model's stride.

    Thread-safe: up to `workers` calls are being enqueued at the same time; further ones wait their
    turn. Work goes to the current stream of the calling thread, and nothing waits for the device,
    but for the capture of a graph: a shape's second use, by each worker. A caller who captures a
    graph gets the model's operators into it, having called it before.

    bytes_per_pixel: device memory that a call takes at its peak for each pixel of input; a worker
        keeps as much for its graphs, for the largest of their shapes.
    takes_hint: whether the model takes a hint.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        workers: int = 1,
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002
    ) -> None:
        """Load `model` to `device`.

        precision: see `Options`; "auto" and "half" are FP16 on a GPU and float32 on the CPU.
        compile: fuse with `torch.compile`, which takes up to a minute at the first call.

        Raises ModelError where the file cannot be read or its weights do not fit its manifest, and
        torch.OutOfMemoryError.
        """
        on_gpu = device.type == "cuda"
        half = on_gpu and precision in ("auto", "half")
        module = unet.load(model, torch.float16 if half else torch.float32)
        self.takes_hint = module.architecture.hint
        self.bytes_per_pixel = _SAFETY * _peak(module, model.manifest.stride)
        self._name = str(model.path)
        self._device = device
        placed: Run = module.to(device)
        if compile:
            placed = _compiled(module, self._name)
        self._run = functools.partial(_run, placed)
        # Last in, first out: few workers then keep to few slots, and graphs.
        self._slots: queue.LifoQueue[Run] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(_slot(self._run) if on_gpu else self._run)

    def __call__(self, binary: Tensor, hint: Tensor | None = None) -> Tensor:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W) on the runtime's device, 0 for ink and 255 for paper; any
                strides.
            hint: uint8 (N, H / 8, W / 8) on the same device, see `kernels.reference.hint`; None if
                it is not known. A model without a hint takes None only.

        Returns:
            (N, H, W), 0..1, owned by the caller: float16, or float32 where "fp32" was asked for or
            on the CPU.

        Raises:
            InputError: The model takes no hint, or the hint does not fit the binary.
            ModelError: Compiling fails.
            torch.OutOfMemoryError: There is no room.
        """
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            given = hints.inputs(self._name, self.takes_hint, binary, hint)
            if self._device.type != "cuda":
                return self._taking_turns(*given)
            with torch.cuda.device(self._device):
                # Within a graph of the caller's there can be none of ours.
                if torch.cuda.is_current_stream_capturing():
                    return self._run(*given)
                return self._taking_turns(*given)

    def _taking_turns(self, *inputs: Tensor) -> Tensor:
        slot = self._slots.get()
        try:
            return slot(*inputs)
        finally:
            self._slots.put(slot)


def _slot(run: Run) -> Slot[CapturedModule]:
    # It knows nothing of the runtime that has it, so that the two go as soon as nobody needs them.
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    return Slot(run, functools.partial(CapturedModule, run), done)


def _run(module: Run, *inputs: Tensor) -> Tensor:
    try:
        return module(*inputs)
    except RuntimeError as error:
        # cuDNN tries its algorithms one after the other, each with memory of its own, and says only
        # that none was left.
        if "unable to find an engine" in str(error):
            raise torch.OutOfMemoryError(f"cuDNN found no room to work in: {error}") from error
        raise


def _compiled(module: nn.Module, path: str) -> Run:
    from torch._dynamo.exc import TorchDynamoException  # a second to import

    compiled = torch.compile(module)

    def run(*inputs: Tensor) -> Tensor:
        try:
            tones: Tensor = compiled(*inputs)
        except TorchDynamoException as error:
            raise ModelError(
                f"{path}: torch.compile failed: {error}; it needs a C++ compiler, and Triton on a "
                "GPU: install them, or run without compile"
            ) from error
        return tones

    return run


def _peak(module: unet.UNet, stride: int) -> float:
    """Bytes per input pixel that are alive at once while `module` runs, at most.

    Counted on tensors without memory, so that the count takes neither time nor a device.
    """
    weights = {name: weight.to("meta") for name, weight in module.named_buffers()}
    binary = torch.empty((1, 8 * stride, 8 * stride), dtype=torch.uint8, device="meta")
    given = hints.inputs("", module.architecture.hint, binary, None)
    with torch.no_grad(), _Alive() as alive:
        torch.func.functional_call(module, weights, given)
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
