"""Who can do what a filter does on a GPU: our kernels, torch's operators, CV-CUDA."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.findings import Finding, NotRun, reason
from bench.gpu.setup import Setup
from bench.gpu.torch_filters import FILTERS

KERNELS = ("triton", "numba_cuda")
EAGER = ("torch FP16", "torch float32")
COMPILED = "torch.compile FP16"

Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Way:
    """One way to do a filter.

    equal: of images of one size, a tensor (N, H, W). ragged: of a list of tensors (H, W).
    """

    equal: Step
    ragged: Step


class Ways:
    """All there are, by the name of the filter and their own."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._kernels: dict[str, Any] = {}
        self._rivals: dict[str, Any] = {}

    def open(self) -> Iterator[Finding]:
        """Imports them; gives what is missing."""
        for name in KERNELS:
            try:
                self._kernels[name] = importlib.import_module(f"sketchify_rt.kernels.{name}")
            except Exception as error:  # drivers that do not fit raise errors of all kinds
                yield NotRun(name, reason(error))
        try:
            self._rivals = importlib.import_module("bench.gpu.cvcuda").FILTERS
        except Exception as error:  # likewise
            yield NotRun("CV-CUDA", reason(error))
        if not self._setup.scale.compiling:
            yield NotRun("torch.compile", "left out of a short run")

    def of(self, name: str) -> dict[str, Way]:
        """The ways to do the filter `name`."""
        setup = self._setup
        ways = {}
        for label, kernels in self._kernels.items():
            kernel = getattr(kernels, name)
            ways[label] = Way(kernel, kernel)
        module = FILTERS[name]
        half, exact = (module().to(setup.device, dtype) for dtype in (setup.half, torch.float32))
        for label, each in zip(EAGER, (half, exact), strict=True):
            ways[label] = Way(_planes(each), _one_by_one(_planes(each)))
        if setup.scale.compiling:
            static, dynamic = (torch.compile(half, dynamic=dynamic) for dynamic in (False, True))
            ways[COMPILED] = Way(_planes(static), _one_by_one(_planes(dynamic)))
        if name in self._rivals:
            whole = _channels(self._rivals[name])
            ways["CV-CUDA"] = Way(whole, _one_by_one(whole))
        return ways


def _planes(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For (N, H, W) what `step` is for (N, 1, H, W)."""
    return lambda images: step(images[:, None])[:, 0]


def _channels(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For (N, H, W) what `step` is for (N, H, W, 1)."""
    return lambda images: step(images[..., None])[..., 0]


def _one_by_one(step: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    return lambda images: [step(image[None])[0] for image in images]
