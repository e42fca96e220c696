"""A TensorRT engine on torch's tensors and stream."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

trt: Any = importlib.import_module("tensorrt")

_INPUT, _OUTPUT = "binary", "tones"

_TYPES = {trt.float32: torch.float32, trt.float16: torch.float16, trt.uint8: torch.uint8}


class Engine:
    """An engine of a model of this project: "binary" (N, 1, H, W) in, "tones" out."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises RuntimeError where TensorRT cannot use the file, or there is none."""
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise RuntimeError(f"{path}: cannot be read ({error.strerror})") from error
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError(f"{path}: no engine of TensorRT {trt.__version__} for this card")
        self._context = self._engine.create_execution_context()
        self._device = device

    def __call__(self, binary: Tensor) -> Tensor:
        """Tones, (N, H, W), of uint8 (N, H, W), on the current stream. Raises RuntimeError."""
        context = self._context
        source = binary[:, None].to(self._type(_INPUT))
        if source.dtype != torch.uint8:
            source /= 255
        tones = torch.empty(source.shape, dtype=self._type(_OUTPUT), device=self._device)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if not (
            context.set_input_shape(_INPUT, tuple(source.shape))
            and context.set_tensor_address(_INPUT, source.data_ptr())
            and context.set_tensor_address(_OUTPUT, tones.data_ptr())
            and context.execute_async_v3(stream)
        ):
            raise RuntimeError(f"the engine does not run on a batch of {tuple(source.shape)}")
        return tones[:, 0]

    def _type(self, name: str) -> torch.dtype:
        return _TYPES[self._engine.get_tensor_dtype(name)]
