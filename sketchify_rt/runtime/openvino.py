"""Run the U-Net with OpenVINO on the CPU."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sketchify_rt.errors import BackendUnavailable, ModelError
from sketchify_rt.image import CELL, Gray
from sketchify_rt.models import Kind, Model
from sketchify_rt.options import Arithmetic
from sketchify_rt.runtime import onnx_files


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO or NNCF in this context.

    Both report their use to a server and write an identity into the home folder of the user, unless
    the package openvino_telemetry is missing. So it cannot be imported in this context.
    """
    name = "openvino_telemetry"
    loaded = sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if loaded is None:
            del sys.modules[name]


with without_telemetry():
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

Tones = npt.NDArray[np.float32]

# OpenVINO caches what it compiled for the sizes that it met, for each layer: 5,000 entries by
# default. After 2,000 images of as many sizes that took 1.3 GB, and memory was still growing. With
# 200 entries, about ten sizes, memory stays constant and the speed is the same: to compile for a
# new size takes a few milliseconds.
_CACHED_PRIMITIVES = 200

# This process's only core, which is never closed. The CPU plugin gives the thread that loads it a
# signal stack for AMX, and frees it when the plugin ends. If another thread closed the core, the
# first would crash at its next signal that has a handler (OpenVINO 2026.4, SigAltStackSetup in
# intel_cpu's plugin.cpp).
_core = ov.Core()
_pid = os.getpid()


def _refuse_fork() -> None:
    # A fork lacks OpenVINO's threads, and would wait for them forever.
    if os.getpid() != _pid:
        raise BackendUnavailable(
            "cpu: OpenVINO does not work in a process that was forked from one that had used it. "
            "To fix: fork before the first sketch, or start processes with "
            'multiprocessing.get_context("spawn") or "forkserver"'
        )


Signature = list[tuple[str, str, list[int]]]


def signature(data: bytes, path: os.PathLike[str]) -> tuple[Signature, Signature]:
    """Return the inputs and the outputs of an ONNX graph.

    Each has a name, a type ("f32") and a shape, in which -1 is any size.

    Args:
        data: The ONNX file.
        path: Of the file, for messages.

    Raises:
        BackendUnavailable: This process was forked from one that had used OpenVINO.
        ModelError: OpenVINO cannot read the file.
    """
    _refuse_fork()
    try:
        network = _core.read_model(data)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error
    inputs, outputs = (
        [
            (
                value.any_name,
                value.element_type.get_type_name(),
                [-1 if size.is_dynamic else size.get_length() for size in value.partial_shape],
            )
            for value in values
        ]
        for values in (network.inputs, network.outputs)
    )
    return inputs, outputs


class OpenVinoRuntime:
    """A compiled model, for any height and width that are multiples of the model's stride.

    Thread-safe: up to `workers` calls, but not more than there are threads, run at the same time;
    further calls wait.
    """

    def __init__(
        self, model: Model, threads: int, workers: int = 1, precision: Arithmetic = "half"
    ) -> None:
        """Compile `model`.

        Args:
            model: The model.
            threads: Processor threads that all calls share.
            workers: Number of calls at the same time.
            precision: See `Options`. "half" is what OpenVINO uses by default on this processor.
                "int8" runs the model's INT8 form, which computes in 8-bit products up to the last
                convolution and in floats after it.

        Raises:
            BackendUnavailable: This process was forked from one that had used OpenVINO.
            ModelError: OpenVINO cannot read the file, there is no INT8 form, or the manifest has
                other inputs.
        """
        _refuse_fork()
        self._hint = model.manifest.takes_hint
        kind: Kind = "int8" if precision == "int8" else "float"
        streams = min(workers, threads)
        data = onnx_files.read(model, kind)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "CPU_RUNTIME_CACHE_CAPACITY": str(_CACHED_PRIMITIVES),
            # By default the threads of every process are bound to the first cores: two processes of
            # one thread each got half the speed. For one process it makes no difference.
            "ENABLE_CPU_PINNING": "NO",
        }
        if precision == "fp32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            network = _core.read_model(data)
            processor = PrePostProcessor(network)
            for place in range(len(network.inputs)):
                value = processor.input(place)
                value.tensor().set_element_type(ov.Type.u8)
                value.preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            compiled = _core.compile_model(processor.build(), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{model.file(kind)}: OpenVINO cannot load it: {error}") from error
        if len(compiled.inputs) != 1 + self._hint:
            expected = "binary and hint" if self._hint else "binary"
            raise ModelError(
                f"{model.file(kind)}: the model does not fit its manifest: got "
                f"{len(compiled.inputs)} inputs, expected {expected}. To fix: export it again with "
                "`python -m training export`"
            )
        # Last in, first out: the buffers of a request that just ran are in the cache.
        self._requests: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, binary: Gray, hint: Gray | None = None) -> Tones:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W), 0 for ink and 255 for paper.
            hint: uint8 (N, H / 8, W / 8), see `kernels.reference.hint`; None if it is not known, or
                if the model takes none.

        Returns:
            float32 (N, H, W), nominally 0..1, owned by the caller.

        Raises:
            BackendUnavailable: This process was forked from one that had used OpenVINO.
        """
        _refuse_fork()
        # OpenVINO reads and writes the memory of these arrays, and does not keep them alive.
        inputs = [np.ascontiguousarray(binary[:, None])]
        if self._hint:
            if hint is None:
                count, height, width = binary.shape
                hint = np.zeros((count, height // CELL, width // CELL), np.uint8)
            inputs.append(np.ascontiguousarray(hint[:, None]))
        tones = np.empty(inputs[0].shape, np.float32)
        request = self._requests.get()
        try:
            for place, values in enumerate(inputs):
                request.set_input_tensor(place, ov.Tensor(values, shared_memory=True))
            request.set_output_tensor(ov.Tensor(tones, shared_memory=True))
            request.infer()
        finally:
            self._requests.put(request)
        return tones[:, 0]
