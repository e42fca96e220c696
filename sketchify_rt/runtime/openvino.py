"""Run the U-Net with OpenVINO on the CPU."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sketchify_rt import forks
from sketchify_rt.errors import BackendUnavailable, ModelError
from sketchify_rt.image import CELL, Gray
from sketchify_rt.models import Kind, Model
from sketchify_rt.options import Arithmetic
from sketchify_rt.runtime import onnx_files


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO or NNCF within this.

    Both report their use to a server and write an identity into the user's home, but for where
    OpenVINO's telemetry package is missing: so it is, meanwhile.
    """
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[name]


with without_telemetry():
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

Tones = npt.NDArray[np.float32]

# OpenVINO keeps what it compiled for the sizes it met, each layer's apart, 5,000 unless told: after
# 2,000 images of as many sizes 1.3 GB, and growing. With 200, some ten sizes, it stays flat and is
# as fast: compiling a size anew takes a few milliseconds.
_CACHED_PRIMITIVES = 200


class _Process:
    """What became of OpenVINO in this process, and in those that it was forked from."""

    used = False
    forked = False  # since it was used

    def fork(self) -> None:
        """In the child."""
        self.forked = self.used


_process = _Process()
_making_core = forks.Lock()
forks.watch(_process, _Process.fork)


def _refuse_fork() -> None:
    # Its threads are missing in a fork, and whoever waits for them waits for ever.
    if _process.forked:
        raise BackendUnavailable(
            "cpu: this process was forked from one that had used OpenVINO, which works in no such "
            "process; fork before the first sketch, or start processes with "
            'multiprocessing.get_context("spawn") or "forkserver"'
        )


def _core() -> ov.Core:
    """Returns this process's core, which is never closed.

    The CPU plugin gives the thread that loads it a signal stack for AMX, and frees it when the
    plugin ends. If another thread closed the core, the first would die at its next signal that has
    a handler (OpenVINO 2026.4, SigAltStackSetup in intel_cpu's plugin.cpp).
    """
    _process.used = True
    with _making_core:  # two threads would make two cores, one of which would be closed
        return _only_core()


@functools.cache
def _only_core() -> ov.Core:
    return ov.Core()


Signature = list[tuple[str, str, list[int]]]


def signature(data: bytes, path: os.PathLike[str]) -> tuple[Signature, Signature]:
    """Inputs and outputs of an ONNX graph: name, type ("f32"), and shape, -1 for any size.

    path: for messages. Raises ModelError where OpenVINO cannot read it, and BackendUnavailable in a
    fork of a process that has used OpenVINO.
    """
    _refuse_fork()
    try:
        network = _core().read_model(data)
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
    """A compiled model. Any height and width that are multiples of the model's stride.

    Thread-safe: up to `workers` calls run at the same time, but no more than there are threads;
    further ones wait their turn.
    """

    def __init__(
        self, model: Model, threads: int, workers: int = 1, precision: Arithmetic = "half"
    ) -> None:
        """Compile `model` for `workers` concurrent calls that share `threads` threads.

        precision: see `Options`; "half" is what OpenVINO itself takes on this processor. "int8"
        runs the model's INT8 form: sums of 8-bit products up to the last convolution, floats after.

        Raises ModelError where OpenVINO cannot read the file, there is no INT8 form, or the inputs
        are not those that the manifest tells of, and BackendUnavailable in a fork of a process that
        has used OpenVINO.
        """
        _refuse_fork()
        self._hint = model.manifest.takes_hint
        kind: Kind = "int8" if precision == "int8" else "float"
        streams = min(workers, threads)
        data = onnx_files.read(model, kind)
        core = _core()
        try:
            network = core.read_model(data)
            if len(network.inputs) != 1 + self._hint:
                wanted = "binary and hint" if self._hint else "binary alone"
                raise ModelError(
                    f"{model.file(kind)}: expected the inputs {wanted}, as in its manifest, got "
                    f"{len(network.inputs)}; export it again with `python -m training export`"
                )
            processor = PrePostProcessor(network)
            for place in range(len(network.inputs)):
                value = processor.input(place)
                value.tensor().set_element_type(ov.Type.u8)
                value.preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            settings = {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "CPU_RUNTIME_CACHE_CAPACITY": str(_CACHED_PRIMITIVES),
                # Else the threads of every process are bound to the first cores: two processes of
                # one thread each got half the speed. One process is as fast either way.
                "ENABLE_CPU_PINNING": "NO",
            }
            if precision == "fp32":
                settings["INFERENCE_PRECISION_HINT"] = "f32"
            compiled = core.compile_model(processor.build(), "CPU", settings)
        except ModelError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{model.file(kind)}: OpenVINO cannot load it: {error}") from error
        # Last in, first out: a request that just ran has its buffers in cache and at their size.
        self._requests: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, binary: Gray, hint: Gray | None = None) -> Tones:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W), 0 for ink and 255 for paper.
            hint: uint8 (N, H / 8, W / 8), see `kernels.reference.hint`. None means "not known"; a
                model without a hint takes nothing else.

        Returns:
            float32 (N, H, W), nominally 0..1, owned by the caller.

        Raises:
            BackendUnavailable: in a fork of a process that has used OpenVINO.
        """
        _refuse_fork()
        # OpenVINO reads and writes these arrays themselves and does not keep them alive.
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
