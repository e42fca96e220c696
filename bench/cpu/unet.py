"""The U-Net on one page, on all threads: the same weights in what one would pick instead.

ms is the time of a page, the mean of the middle half of the runs, and least_ms the shortest, mp_s
the megapixels in a second, others_take how many times as long the way takes as ours in the same
arithmetic. All that are compared take turns in the same rounds. gflop_s counts the convolutions, a
multiply-add as two. The U-Net of the paper (Ronneberger et al. 2015) takes no hint and has random
weights, which cost as much; it is compared with ours in float32, in a few rounds of its own, as it
takes so long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench import harness
from bench.bench_kernels import inputs
from bench.bench_runtime import bare
from bench.cpu.scale import Scale
from bench.findings import Finding, NotRun, Table, reason
from sketchify_rt import models
from sketchify_rt.image import Gray
from sketchify_rt.models import Model
from sketchify_rt.options import Arithmetic, Options
from sketchify_rt.runtime.openvino import OpenVinoRuntime
from training.initial import begin_with, shape
from training.model import UNet, flop_per_pixel
from training.recipe import UNetConfig

OURS = "sketchify-rt"
PAPER = "the paper's U-Net, PyTorch"

Run = Callable[[], object]


def measure(scale: Scale) -> Iterator[Finding]:
    """A table."""
    model = models.load("lite")
    stride = 2 ** scale.paper[1]
    tiles = [tile[None] for tile in inputs(model, scale.height, scale.width, stride)]
    threads = Options().thread_count
    torch.set_num_threads(threads)
    rows: list[harness.Row] = []
    for precision in ("fp32", "half", "int8"):
        ways: dict[str, tuple[Run, float]] = {}
        for name, make in _ways(model, tiles, precision, threads, scale).items():
            try:
                run, flop = make()
                run()
            except Exception as error:  # compilers and packages that are not there raise all kinds
                yield NotRun(f"{name}, {precision}", reason(error))
            else:
                ways[name] = run, flop
        paper = ways.pop(PAPER, None)
        rows += _rows(precision, tiles[0].size, ways, scale)
        if paper:
            few = replace(scale, unet_seconds=0)
            rows += _rows(precision, tiles[0].size, {OURS: ways[OURS], PAPER: paper}, few)[1:]
    yield Table("unet", rows)


def _rows(
    precision: Arithmetic, pixels: int, ways: dict[str, tuple[Run, float]], scale: Scale
) -> list[harness.Row]:
    # Threads of ONNX Runtime and torch go on spinning for up to 0.2 s: whoever came next seemed to
    # take half as long again.
    runs = {name: run for name, (run, _) in ways.items()}
    times = harness.samples_ms(
        runs, seconds=scale.unet_seconds, least=scale.rounds, rest=scale.rest
    )
    usual = {name: harness.midmean(values) for name, values in times.items()}
    return [
        {
            "precision": precision,
            "way": name,
            "ms": ms,
            "least_ms": min(times[name]),
            "mp_s": pixels / ms / 1e3,
            "gflop_s": ways[name][1] * pixels / ms / 1e6,
            "others_take": ms / usual[OURS],
        }
        for name, ms in usual.items()
    ]


def _ways(
    model: Model, tiles: Sequence[Gray], precision: Arithmetic, threads: int, scale: Scale
) -> dict[str, Callable[[], tuple[Run, float]]]:
    """By name what makes a way to run and its operations a pixel; making it may raise anything."""
    flop = model.manifest.gflop_per_megapixel * 1e3
    tensors = [torch.from_numpy(tile).unsqueeze(1).float().div_(255) for tile in tiles]

    def ours() -> tuple[Run, float]:
        runtime = OpenVinoRuntime(model, threads, 1, precision)
        return lambda: runtime(*tiles), flop

    def openvino() -> tuple[Run, float]:
        return bare(model, tiles, precision, threads, 1)[0], flop

    def onnxruntime() -> tuple[Run, float]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        content = model.read("int8" if precision == "int8" else "float")
        session = ort.InferenceSession(content, options, ["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feeds = {
            name: tile[:, None] / np.float32(255) for name, tile in zip(names, tiles, strict=True)
        }
        return lambda: session.run(None, feeds), flop

    def eager() -> tuple[Run, float]:
        return _torch(lite(), tensors, precision), flop

    def compiled() -> tuple[Run, float]:
        return _torch(torch.compile(lite()), tensors, precision), flop

    def paper() -> tuple[Run, float]:
        config = UNetConfig(*scale.paper, unshuffle=1)
        return _torch(UNet(config).eval(), tensors[:1], precision), flop_per_pixel(config)

    ways = {OURS: ours, "OpenVINO, bare": openvino}
    if precision != "half":  # ONNX Runtime has no bfloat16 on processors
        ways["ONNX Runtime"] = onnxruntime
    if precision != "int8":  # and torch no use for the quantized file
        ways["PyTorch, eager"] = eager
        if scale.compiling:
            ways["PyTorch, torch.compile"] = compiled
    if precision == "fp32":
        ways[PAPER] = paper
    return ways


def lite() -> UNet:
    """The shipped model in PyTorch, BatchNorm folded, to evaluate."""
    network = UNet(shape("lite"))
    begin_with(network, "lite")
    return network.eval()


def _torch(network: Callable[..., Tensor], given: Sequence[Tensor], precision: Arithmetic) -> Run:
    mixed = precision == "half"

    def run() -> object:
        cast = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
        with torch.inference_mode(), cast:
            return network(*given)

    return run
