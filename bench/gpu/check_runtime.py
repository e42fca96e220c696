"""The U-Net in torch on the GPU, compared with float32 on the processor.

Levels, of 255, say by how much the tones of "lite" differ. `replays` counts the calls that replayed
a CUDA graph; `same` says whether each input gave the same tones in every call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench.bench_kernels import inputs
from bench.findings import Finding, NotRun, Table, WrongError, reason
from bench.gpu.setup import Setup
from bench.gpu.timing import release
from sketchify_rt import models
from sketchify_rt.models import Model
from sketchify_rt.options import Precision
from sketchify_rt.runtime import unet
from sketchify_rt.runtime.torch import TorchRuntime

# Batches, heights and widths of pages; the U-Net gets them padded to multiples of its stride.
PAGES = ((1, 1, 1), (3, 67, 130), (1, 333, 517))
LEVELS: dict[Precision, float] = {"half": 1.0, "fp32": 0.01}  # by which tones may differ


def measure(setup: Setup) -> Iterator[Finding]:
    """The torch runtime beside the same model in float32 on the processor.

    Raises:
        WrongError: The tones differ too much or from call to call, or no CUDA graph was replayed.
    """
    on_gpu = setup.device.type == "cuda"
    if on_gpu:
        yield from _epilogue(setup)
    lite = models.load("lite")
    exact = unet.load(lite, torch.float32)
    for precision, limit in LEVELS.items():
        painter = TorchRuntime(lite, setup.device, precision=precision)
        rows = [_painted(setup, lite, painter, exact, shape) for shape in PAGES]
        yield Table(f"torch runtime, {precision}", [*rows])
        for row in rows:
            if not (row["largest_level"] <= limit and row["same"]):  # NaN is not below
                raise WrongError(f"{precision}: expected at most {limit} levels and same: {row}")
            if on_gpu and not row["replays"]:
                raise WrongError(f"{precision}: no CUDA graph was replayed: {row}")
        release(setup.device)


def _epilogue(setup: Setup) -> Iterator[Finding]:
    """Says why, if torch's own operators add bias and ReLU in place of the Triton kernel."""
    try:
        from sketchify_rt.runtime.epilogue import finish

        sums, bias = (torch.zeros(*shape, device=setup.device) for shape in ((1, 1, 1, 1), (1,)))
        finish(sums, bias, False)
    except Exception as error:  # of all kinds; the runtime goes on without it as well
        yield NotRun("Triton kernel for bias and ReLU", reason(error))


def _painted(
    setup: Setup, model: Model, painter: Any, exact: Any, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """A row for one shape: two inputs by turns, so that a graph is used, captured and replayed."""
    count, height, width = shape
    batches = [
        torch.stack([torch.from_numpy(plane).roll((5 * n, 3 * n), (0, 1)) for n in range(count)])
        for plane in inputs(model, height, width)
    ]
    given = [batches, [255 - batch for batch in batches]]
    with torch.no_grad():
        expected = [exact(*each) for each in given]
    first: dict[int, Tensor] = {}
    same, levels = True, []
    graph = torch.cuda.CUDAGraph
    with mock.patch.object(graph, "replay", autospec=True, side_effect=graph.replay) as replay:
        for index in (0, 1, 0, 1, 0):
            tones = painter(*(batch.to(setup.device) for batch in given[index])).float().cpu()
            levels.append((tones - expected[index]).abs() * 255)
            same = same and torch.equal(first.setdefault(index, tones), tones)
    apart = torch.stack(levels)
    return {
        "shape": "x".join(map(str, batches[0].shape)),
        "largest_level": float(apart.max()),
        "mean_level": float(apart.mean()),
        "replays": replay.call_count,
        "same": same,
    }
