"""What a part of the GPU benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sketchify_rt.options import Runtime


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    seconds, rounds: of each comparison, at least. copy_bytes: of one copy on the device. matmul:
    side of the matrices. pages: in a batch for the kernels. height, width: of a page. compiling:
    whether torch.compile takes part, which takes a few seconds for each function and shape.
    lite_pixels, large_pixels: of a batch for the two U-Nets, at most. tile: side of a U-Net's tile.
    large_width, large_depth: of the large U-Net. files: distinct JPEG files. images: files that go
    through the pipeline in one run, with repetitions. agreeing: pages compared with the CPU.
    """

    seconds: float = 3.0
    rounds: int = 15
    copy_bytes: int = 2**30
    matmul: int = 8192
    pages: int = 256
    height: int = 1401
    width: int = 992
    compiling: bool = True
    lite_pixels: int = 2**24
    large_pixels: int = 2**22
    tile: int = 512
    large_width: int = 64
    large_depth: int = 4
    files: int = 192
    images: int = 768
    agreeing: int = 8


@dataclass(frozen=True)
class Limits:
    """What the card was measured to reach. copy: bytes read and written a second. flop: FP16."""

    copy: float
    flop: float


@dataclass
class Setup:
    """Where and how much to measure.

    engine: TensorRT engine of the model "lite"; None: from the cache. limits: None until measured,
    or where that failed.
    """

    device: torch.device
    scale: Scale
    engine: Path | None = None
    limits: Limits | None = None

    @property
    def half(self) -> torch.dtype:
        """FP16, which the processor is too slow at for the tests."""
        return torch.float16 if self.device.type == "cuda" else torch.float32

    @property
    def runtime(self) -> Runtime:
        """The one that pipelines are measured with, whatever engines there are."""
        return "torch" if self.device.type == "cuda" else "auto"

    def generator(self) -> torch.Generator:
        """Random numbers on the device, the same in every run."""
        return torch.Generator(self.device).manual_seed(0)
