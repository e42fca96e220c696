"""The filters of CV-CUDA, NVIDIA's own, on torch's tensors and stream."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.gpu.torch_filters import divide

cvcuda: Any = importlib.import_module("cvcuda")

_MEDIAN = (3, 3)
_SIGMA = (3.5, 3.5)  # what OpenCV takes for 21 taps


def binarize(gray: Tensor) -> Tensor:
    """As `kernels.reference.binarize`, uint8 (N, H, W, 1)."""

    def filtered(pages: Any) -> Any:
        threshold = cvcuda.adaptivethreshold(
            pages,
            255.0,
            cvcuda.AdaptiveThresholdType.GAUSSIAN_C,
            cvcuda.ThresholdType.BINARY,
            9,
            2.0,
        )
        return cvcuda.median_blur(threshold, _MEDIAN)

    return _on_stream(filtered, gray)


def dodge(gray: Tensor) -> Tensor:
    """As `kernels.reference.dodge`, uint8 (N, H, W, 1); CV-CUDA has no division, torch divides."""

    def filtered(pages: Any) -> Any:
        return cvcuda.gaussian(pages, (21, 21), _SIGMA, cvcuda.Border.REFLECT101)

    return divide(gray, _on_stream(filtered, gray))


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"binarize": binarize, "dodge": dodge}


def _on_stream(filtered: Callable[[Any], Any], gray: Tensor) -> Tensor:
    with cvcuda.as_stream(torch.cuda.current_stream().cuda_stream):
        return torch.as_tensor(filtered(cvcuda.as_tensor(gray, "NHWC")).cuda(), device=gray.device)
