"""The U-Net through our runtime against OpenVINO called directly, on one page.

A row is one way to run it: median_ms is ours, baseline_ms that of the bare model, compiled for this
one shape and given float32 tensors that exist already, taken in the same rounds. ratio says how
much of its speed we reach. `workers` images run at the same time; times are per image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench import harness
from bench.bench_kernels import inputs
from sketchify_rt import models
from sketchify_rt.image import Gray
from sketchify_rt.models import Model
from sketchify_rt.options import ARITHMETICS, Arithmetic, Options
from sketchify_rt.runtime.openvino import OpenVinoRuntime


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--height", type=int, default=1401, help="of the page (default: 1401)")
    parser.add_argument("--width", type=int, default=992, help="of the page (default: 992)")
    options = parser.parse_args(argv)

    model = models.load(options.model)
    tiles = [tile[None] for tile in inputs(model, options.height, options.width)]
    threads = Options().thread_count
    rows = [
        measure(model, tiles, precision, threads, workers, options.seconds)
        for precision in ARITHMETICS
        if precision != "int8" or model.manifest.int8_sha256
        for workers in sorted({1, min(2, threads), threads})
    ]
    harness.report(rows, {}, options.json)


def measure(
    model: Model,
    tiles: Sequence[Gray],
    precision: Arithmetic,
    threads: int,
    workers: int,
    seconds: float,
) -> dict[str, object]:
    """One row: `workers` images at a time on `threads` threads."""
    ours = OpenVinoRuntime(model, threads, workers, precision)
    bare_runs = bare(model, tiles, precision, threads, workers)
    with ThreadPoolExecutor(workers) as pool:
        candidates = {
            "ours": lambda: list(pool.map(lambda _: ours(*tiles), range(workers))),
            "bare": lambda: list(pool.map(lambda run: run(), bare_runs)),
        }
        times = harness.medians_ms(candidates, seconds=seconds, least=5)
    ms = {name: time / workers for name, time in times.items()}
    gflop = model.manifest.gflop_per_megapixel * tiles[0].size / 1e6
    return {
        "name": model.manifest.name,
        "height": tiles[0].shape[1],
        "width": tiles[0].shape[2],
        "precision": precision,
        "threads": threads,
        "workers": workers,
        "median_ms": ms["ours"],
        "baseline_ms": ms["bare"],
        "ratio": ms["bare"] / ms["ours"],
        "gflop_s": gflop / ms["ours"] * 1e3,
    }


def bare(
    model: Model, tiles: Sequence[Gray], precision: Arithmetic, threads: int, workers: int
) -> list[Callable[[], object]]:
    """`workers` requests of the model as it is to OpenVINO, each ready to run on its inputs."""
    import openvino as ov  # after our runtime, which keeps its telemetry out

    core = ov.Core()
    network = core.read_model(model.file("int8" if precision == "int8" else "float"))
    network.reshape({place: [1, 1, *tile.shape[1:]] for place, tile in enumerate(tiles)})
    hints: dict[str, int | str] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": workers}
    if precision == "fp32":
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(network, "CPU", hints)
    runs: list[Callable[[], object]] = []
    for _ in range(workers):
        request = compiled.create_infer_request()
        for place, tile in enumerate(tiles):
            request.get_input_tensor(place).data[:] = tile[:, None] / np.float32(255)
        runs.append(request.infer)
    return runs
