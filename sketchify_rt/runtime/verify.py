"""Compare a TensorRT engine with the model that it was built from, and time it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sketchify_rt.errors import EngineError
from sketchify_rt.image import CELL
from sketchify_rt.models import Model
from sketchify_rt.models.crops import crops
from sketchify_rt.runtime.engine_record import Check, EnginePrecision
from sketchify_rt.runtime.tensorrt import Shape, TensorRTRuntime
from sketchify_rt.runtime.torch import TorchRuntime

# Levels of 255, largest and mean, that an engine may be from the float32 model. INT8 of "lite" is
# 141 and 0.34 from it on pages with their own hint, and 120 and 0.92 on the crops of the tests,
# whose hints are darker. In FP16 TensorRT need not sum in float32.
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
    go_on: Callable[[], None] = lambda: None,
) -> Check:
    """How an engine does on crops of pictures; at its least, best and largest shape.

    bounds: on the largest and the mean difference, None for those above. go_on: called now and
    then; what it raises ends the verification. Raises EngineError where it gives NaN, or tones that
    are further from those of the float32 model than that.
    """
    reference_runtime = TorchRuntime(model, device, precision="fp32")
    largest, total, pixels, tiles = 0.0, 0.0, 0, 0
    for shape in dict.fromkeys((runtime.least, runtime.best, runtime.most)):
        batches = [_tiles(shape, turn, runtime.takes_hint, device) for turn in range(_BATCHES)]
        expected = [_by_parts(reference_runtime, inputs, go_on) for inputs in batches]
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
    most_largest, most_mean = bounds or BOUNDS[precision]
    if largest > most_largest or mean > most_mean:
        raise EngineError(
            f"{runtime.name}: its tones are up to {largest:.2f} levels of 255 from the float32 "
            f"model's, {mean:.3f} on average; this {precision} engine may be {most_largest:g} and "
            f"{most_mean:g} from it"
        )
    speed = _megapixels_a_second(runtime, _tiles(runtime.best, 0, runtime.takes_hint, device))
    return Check(round(largest, 4), round(mean, 5), round(speed, 1), tiles)


def _tiles(shape: Shape, turn: int, hint: bool, device: torch.device) -> tuple[Tensor, ...]:
    """A batch of that shape, cut from the shipped crops; another one each turn.

    And its hints if asked for: in each crop from "not known" on the left to black on the right, as
    the crops themselves, which are black and white, tell nothing else than black.
    """
    walls = [_wall(crops(), 1, shape, turn)]
    if hint:
        count, height, width = crops().shape
        ramp = np.linspace(0, 255, width // CELL).astype(np.uint8)
        walls.append(_wall(np.tile(ramp, (count, height // CELL, 1)), CELL, shape, turn))
    return tuple(torch.from_numpy(wall).to(device) for wall in walls)


def _wall(cut: npt.NDArray[np.uint8], side: int, shape: Shape, turn: int) -> npt.NDArray[np.uint8]:
    """A batch of that shape in pixels, of crops that have one value for `side` by `side` pixels."""
    count, height, width = shape[0], shape[1] // side, shape[2] // side
    wall = np.concatenate([np.concatenate([*row], axis=1) for row in np.split(cut, 2)])
    wall = np.tile(wall, (-(-height // wall.shape[0]), -(-width // wall.shape[1])))
    shifts = ((turn * count + index) * 97 // side for index in range(count))
    return np.stack([np.roll(wall, (-n, -3 * n), (0, 1))[:height, :width] for n in shifts])


def _back_to_back(
    runtime: TensorRTRuntime, batches: Sequence[tuple[Tensor, ...]], device: torch.device
) -> list[Tensor]:
    """All are queued, on two streams in turns, before any is done, as in use.

    So a batch that is written over before it was read, or runs into the one before, is seen here.
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


def _by_parts(
    runtime: TorchRuntime, inputs: tuple[Tensor, ...], go_on: Callable[[], None]
) -> Tensor:
    together = max(1, _REFERENCE // inputs[0][0].numel())
    tones = []
    for part in zip(*(torch.split(tensor, together) for tensor in inputs), strict=True):
        go_on()
        tones.append(runtime(*part))
    return torch.cat(tones)


def _megapixels_a_second(runtime: TensorRTRuntime, inputs: tuple[Tensor, ...]) -> float:
    binary, seconds = inputs[0], []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        runtime(*inputs)
        if binary.is_cuda:
            torch.cuda.synchronize(binary.device)
        seconds.append(time.perf_counter() - start)
    return binary.numel() / 1e6 / statistics.median(seconds)
