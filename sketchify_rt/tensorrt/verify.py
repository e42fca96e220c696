"""Compare an engine with the model that it was built from, and time it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sketchify_rt.errors import EngineError
from sketchify_rt.image import CELL
from sketchify_rt.models import Model
from sketchify_rt.models.crops import crops
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.tensorrt.record import Check, EnginePrecision
from sketchify_rt.tensorrt.session import Shape, TensorRTRuntime

# Levels of 255, largest and mean, that an engine may differ from the float32 model. INT8 of "lite"
# differs by 141 and 0.34 on pages with their own hint, and by 120 and 0.92 on the crops of the
# tests, whose hints are darker. In FP16 TensorRT need not sum in float32.
BOUNDS: dict[EnginePrecision, tuple[float, float]] = {
    "fp32": (0.1, 0.01),
    "fp16": (4.0, 0.25),
    "int8": (192.0, 2.5),
}

_BATCHES = 3  # of different tiles
_REFERENCE = 2**20  # pixels that the float32 model takes at once
_ROUNDS = 9  # of timing


def verify(
    runtime: TensorRTRuntime,
    model: Model,
    precision: EnginePrecision,
    device: torch.device,
    bounds: tuple[float, float] | None = None,
) -> Check:
    """Run an engine on crops of pictures, at its smallest, best and largest shape.

    Args:
        runtime: The engine.
        model: The model that it was built from.
        precision: The engine's.
        device: The GPU.
        bounds: Largest and mean difference allowed, in levels of 255; None for `BOUNDS`.

    Returns:
        How it compared, and its speed.

    Raises:
        EngineError: The engine gives NaN, or tones that differ more than that.
    """
    reference = TorchRuntime(model, device, precision="fp32")
    largest, total, pixels, tiles = 0.0, 0.0, 0, 0
    for shape in dict.fromkeys((runtime.least, runtime.best, runtime.most)):
        batches = [_tiles(shape, turn, runtime.takes_hint, device) for turn in range(_BATCHES)]
        expected = [_in_parts(reference, inputs) for inputs in batches]
        # The first is run, the second captured, the rest replayed.
        made = _back_to_back(runtime, batches * 2, device)
        for tones, floats in zip(made, expected * 2, strict=True):
            levels = (tones.float() - floats).abs() * 255
            if not levels.isfinite().all():
                raise EngineError(f"{runtime.name}: a batch of {shape} gives NaN or infinite tones")
            largest = max(largest, float(levels.max()))
            total += float(levels.double().sum())
            pixels += levels.numel()
        tiles += sum(len(inputs[0]) for inputs in batches)
    mean = total / pixels
    max_largest, max_mean = bounds or BOUNDS[precision]
    if largest > max_largest or mean > max_mean:
        raise EngineError(
            f"{runtime.name}: its tones differ too much from the float32 model's: got up to "
            f"{largest:.2f} levels of 255, {mean:.3f} on average, expected at most {max_largest:g} "
            f"and {max_mean:g} for {precision}"
        )
    speed = _megapixels_per_second(runtime, _tiles(runtime.best, 0, runtime.takes_hint, device))
    return Check(round(largest, 4), round(mean, 5), round(speed, 1), tiles)


def _tiles(shape: Shape, turn: int, hint: bool, device: torch.device) -> tuple[Tensor, ...]:
    """A batch of that shape, cut from the shipped crops, another one each turn; and its hint.

    The hint goes from "not known" on the left to black on the right: that of the crops themselves,
    which are black and white, would be nothing but black.
    """
    count, height, width = shape
    cut = crops()
    tiles = []
    for index in range(turn * count, (turn + 1) * count):
        rows, columns = (range(97 * index, 97 * index + side) for side in (height, width))
        crop = cut[index % len(cut)]
        tiles.append(crop.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap"))
    batch = [np.stack(tiles)]
    if hint:
        ramp = np.linspace(0, 255, width // CELL).astype(np.uint8)
        batch.append(np.tile(ramp, (count, height // CELL, 1)))
    return tuple(torch.from_numpy(array).to(device) for array in batch)


def _back_to_back(
    runtime: TensorRTRuntime, batches: Sequence[tuple[Tensor, ...]], device: torch.device
) -> list[Tensor]:
    """Queue all batches, on two streams in turn, before any is done, as in use.

    So a batch that is overwritten before it was read, or runs into the one before, is noticed.
    """
    if device.type != "cuda":
        return [runtime(*inputs) for inputs in batches]
    streams = [torch.cuda.Stream(device) for _ in range(2)]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    tones = []
    for inputs, stream in zip(batches, itertools.cycle(streams), strict=False):
        with torch.cuda.stream(stream):
            tones.append(runtime(*inputs))
    torch.cuda.synchronize(device)
    return tones


def _in_parts(runtime: TorchRuntime, inputs: tuple[Tensor, ...]) -> Tensor:
    together = max(1, _REFERENCE // inputs[0][0].numel())
    parts = zip(*(torch.split(tensor, together) for tensor in inputs), strict=True)
    return torch.cat([runtime(*part) for part in parts])


def _megapixels_per_second(runtime: TensorRTRuntime, inputs: tuple[Tensor, ...]) -> float:
    binary, seconds = inputs[0], []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        runtime(*inputs)
        if binary.is_cuda:
            torch.cuda.synchronize(binary.device)
        seconds.append(time.perf_counter() - start)
    return binary.numel() / 1e6 / statistics.median(seconds)
