"""Run the U-Net with OpenVINO on the CPU."""

from __future__ import annotations

import queue
import sys

import numpy as np
import numpy.typing as npt

from sketchify_rt.errors import ModelError
from sketchify_rt.image import Gray
from sketchify_rt.models import Model
from sketchify_rt.options import Precision

# OpenVINO's Python package reports its use to a server and writes an identity into the user's home,
# but for where its telemetry package is missing: so it is, while it is imported.
_telemetry = "openvino_telemetry"
_hidden = _telemetry not in sys.modules
if _hidden:
    sys.modules[_telemetry] = None  # type: ignore[assignment]
try:
    import openvino as ov
    from openvino.preprocess import PrePostProcessor
finally:
    if _hidden:
        del sys.modules[_telemetry]

Tones = npt.NDArray[np.float32]

# OpenVINO keeps what it compiled for the sizes it met, each layer's apart, 5,000 unless told: after
# 2,000 images of as many sizes 1.3 GB, and growing. With 200, some ten sizes, it stays flat and is
# as fast: compiling a size anew takes a few milliseconds.
_CACHED_PRIMITIVES = 200


class OpenVinoRuntime:
    """A compiled model. Any height and width that are multiples of the model's stride.

    Thread-safe: up to `workers` calls run at the same time, but no more than there are threads;
    further ones wait their turn.
    """

    def __init__(
        self, model: Model, threads: int, workers: int = 1, precision: Precision = "auto"
    ) -> None:
        """Compile `model` for `workers` concurrent calls that share `threads` threads.

        precision: see `Options`; "auto" is what OpenVINO itself takes on this processor.

        Raises ModelError where OpenVINO cannot read the file.
        """
        streams = min(workers, threads)
        core = ov.Core()
        try:
            network = core.read_model(model.read())
            processor = PrePostProcessor(network)
            processor.input().tensor().set_element_type(ov.Type.u8)
            processor.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            settings = {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "CPU_RUNTIME_CACHE_CAPACITY": str(_CACHED_PRIMITIVES),
            }
            if precision == "fp32":
                settings["INFERENCE_PRECISION_HINT"] = "f32"
            compiled = core.compile_model(processor.build(), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{model.path}: OpenVINO cannot load it: {error}") from error
        # Last in, first out: a request that just ran has its buffers in cache and at their size.
        self._requests: queue.LifoQueue[ov.InferRequest] = queue.LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, binary: Gray) -> Tones:
        """Paint tones.

        binary: uint8 (N, H, W), 0 for ink and 255 for paper. Returns float32 (N, H, W), nominally
        0..1, owned by the caller.
        """
        # OpenVINO reads and writes these arrays themselves and does not keep them alive.
        source = np.ascontiguousarray(binary[:, None])
        tones = np.empty(source.shape, np.float32)
        request = self._requests.get()
        try:
            request.set_input_tensor(ov.Tensor(source, shared_memory=True))
            request.set_output_tensor(ov.Tensor(tones, shared_memory=True))
            request.infer()
        finally:
            self._requests.put(request)
        return tones[:, 0]
