"""The answers of the GPU beside those of the CPU backend in float32.

within_1 is the percentage of pixels that differ by at most one level, equal of those that do not
differ, mean the mean difference in levels, and largest the largest. Where OpenVINO is not
installed, torch runs the U-Net of the CPU backend.

From arrays both see the same luma, and within_1 should be 99.9 or more. From JPEG files it cannot
be, since the decoders round luma differently and the threshold makes black or white of one level.
On pages as these, a float IDCT that rounds perfectly leaves 99.66 to 99.68 % of a binary equal,
98.8 % of dodge, and 82 % of a sketch, whose mean difference is 0.36 to 0.39; ffmpeg's "simple" IDCT
99.5 to 99.6 %, 98.4 %, 80 % and 0.39 to 0.46. On cleaner files, such as those of samples/, more is
equal: 99.8 % of a binary, with a mean difference of the sketch below 0.5.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import harness
from bench.findings import Finding, NotRun, Table, reason
from bench.gpu import jpegs
from bench.gpu.setup import Setup
from sketchify_rt import Sketchifier
from sketchify_rt.backend.cpu import CpuBackend
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.models import Model
from sketchify_rt.options import MAX_PIXELS, MODES, Mode, Options
from sketchify_rt.painter import Painter, Runtime


def measure(setup: Setup) -> Iterator[Finding]:
    """A row for each mode and kind of input."""
    scale = setup.scale
    files = jpegs.mixed(scale.agreeing, scale.height, scale.width)
    grays = [codec.decode(File("page", data), MAX_PIXELS) for data in files]
    rows: list[harness.Row] = []
    if importlib.util.find_spec("openvino") is None:
        yield NotRun("OpenVINO", "not installed; the CPU backend runs the U-Net with torch")
    for mode in MODES:
        for source, pages in ("arrays", grays), ("JPEG", files):
            try:
                rows.append({"mode": mode, "from": source, **_compared(setup, mode, pages)})
            except Exception as error:  # the other modes are compared all the same
                yield NotRun(f"{mode} from {source}", reason(error))
    yield Table("agreement with the CPU backend", rows)


def _compared(setup: Setup, mode: Mode, pages: Sequence[Any]) -> harness.Row:
    with (
        Sketchifier(mode=mode, device=str(setup.device), runtime=setup.runtime) as ours,
        Sketchifier(mode=mode, device="cpu", precision="fp32") as theirs,
    ):
        if importlib.util.find_spec("openvino") is None:
            theirs.backend.open_painter = _torch_painter  # type: ignore[method-assign]
        pairs = zip(ours.map(pages), theirs.map(pages), strict=True)
        off = np.concatenate([np.abs(a.astype(np.int16) - b).ravel() for a, b in pairs])
    return {
        "pages": len(pages),
        "within_1": 100 * float(np.mean(off <= 1)),
        "equal": 100 * float(np.mean(off == 0)),
        "mean": float(np.mean(off)),
        "largest": int(off.max()),
    }


def _torch_painter(model: Model, threads: int, workers: int) -> Painter:
    """torch in float32 on the processor, for arrays."""
    from sketchify_rt.runtime.torch import TorchRuntime

    runtime = TorchRuntime(model, torch.device("cpu"), workers, "fp32")

    def infer(binary: NDArray[np.uint8], hint: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        cells = None if hint is None else torch.from_numpy(hint)
        tones: NDArray[np.float32] = runtime(torch.from_numpy(binary), cells).numpy()
        return tones

    return Painter(Runtime(infer), CpuBackend(Options()), model.manifest)
