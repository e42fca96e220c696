"""A folder of pages to PNG: each stage alone, the whole pipeline, and a plain OpenCV loop.

First table: every stage alone over all pages on one thread; cpu_ms is processor time a page.

Second table: the pipeline from files to files on all cores. core_ms is cores x wall time a page;
waste is core_ms over the processor time of the mode's stages, so 1 means that nothing waits, and
nothing is in another's way. ratio is images/s against the OpenCV loop (imread, cvtColor,
GaussianBlur, divide, imwrite, on the same cores), taken in the same rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bench import harness
from sketchify_rt import Encoding, Sketchifier, models, tiling
from sketchify_rt.batch.runner import run
from sketchify_rt.batch.sinks import Folder, write
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.codec import cpu as codec
from sketchify_rt.kernels import native
from sketchify_rt.options import MAX_PIXELS, Mode, Options
from sketchify_rt.runtime.openvino import OpenVinoRuntime

STAGES: dict[Mode, tuple[str, ...]] = {
    "dodge": ("read and decode", "dodge", "encode dodge", "write"),
    "sketch": ("read and decode", "binarize", "infer", "compose", "encode sketch", "write"),
}


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--pages", type=Path, default=Path("samples"), help="folder of pictures (default: samples)"
    )
    options = parser.parse_args(argv)
    jobs = list(Sources([str(options.pages)], Path("none")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = stages([job.source for job in jobs], folder / "page.png")
        rows = pipeline(jobs, folder, alone, options.seconds)
    print(harness.table([{"stage": stage, "cpu_ms": ms} for stage, ms in alone.items()]))
    print()
    notes = {"pages": len(jobs), "stages, cpu ms a page": alone}
    harness.report(rows, notes, options.json)


def stages(files: list[Path], output: Path) -> dict[str, float]:
    """Processor time of each stage in milliseconds a page, the median of three rounds."""
    model = models.load("lite")
    infer = OpenVinoRuntime(model, threads=1)
    stride = model.manifest.stride
    pages = [codec.decode(path.read_bytes(), str(path), MAX_PIXELS) for path in files]
    binaries = [native.binarize(page) for page in pages]
    tiles = []
    for page in binaries:
        ((row, column),) = tiling.grid(page.shape, max(page.shape) + stride, 0, stride)
        tiles.append(tiling.cut(page, row, column)[None])
    tones = [infer(tile)[0] for tile in tiles]
    sketches = [native.compose(tone) for tone in tones]
    dodges = [native.dodge(page) for page in pages]
    png = Encoding()
    data = codec.encode(dodges[0], png)

    def each(step: Callable[..., object], inputs: list[object]) -> Callable[[], object]:
        return lambda: [step(value) for value in inputs]

    rounds: dict[str, Callable[[], object]] = {
        "read and decode": each(
            lambda path: codec.decode(path.read_bytes(), str(path), MAX_PIXELS), [*files]
        ),
        "binarize": each(native.binarize, [*pages]),
        "dodge": each(native.dodge, [*pages]),
        "infer": each(infer, [*tiles]),
        "compose": each(native.compose, [*tones]),
        "encode dodge": each(lambda image: codec.encode(image, png), [*dodges]),
        "encode sketch": each(lambda image: codec.encode(image, png), [*sketches]),
        "write": each(lambda _: write(output, data), [*files]),
    }
    return {
        name: _median([_cpu_seconds(work) for _ in range(3)]) * 1e3 / len(files)
        for name, work in rounds.items()
    }


def pipeline(
    jobs: list[Job], folder: Path, alone: dict[str, float], seconds: float
) -> list[harness.Row]:
    """One row for each mode; each mode's rounds are interleaved with those of the OpenCV loop."""
    # Twice over all pages: at the end a core or two have nothing left to do, and of few pages that
    # is a large share.
    jobs = [Job(job.source, f"{again}/{job.stem}") for again in range(2) for job in jobs]
    cores = Options().thread_count
    cv2.setNumThreads(cores)
    rows: list[harness.Row] = []
    for mode, names in STAGES.items():
        sink = Folder(folder / mode, "png", "overwrite")
        with Sketchifier(mode=mode) as engine:
            ours = partial(run, engine, jobs, sink, Encoding(), workers=cores)
            opencv = partial(opencv_loop, [job.source for job in jobs], folder)
            times = harness.medians_ms({"ours": ours, "opencv": opencv}, seconds=seconds, least=3)
        core_ms = cores * times["ours"] / len(jobs)
        stages_ms = sum(alone[name] for name in names)
        rows.append(
            {
                "mode": mode,
                "cores": cores,
                "images_s": 1e3 * len(jobs) / times["ours"],
                "opencv_images_s": 1e3 * len(jobs) / times["opencv"],
                "ratio": times["opencv"] / times["ours"],
                "core_ms": core_ms,
                "stages_ms": stages_ms,
                "waste": core_ms / stages_ms,
            }
        )
    return rows


def opencv_loop(files: list[Path], folder: Path) -> None:
    """The dodge filter as most people would write it."""
    for path in files:
        gray = cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2GRAY)
        dodge = cv2.divide(gray, cv2.GaussianBlur(gray, (21, 21), 0), scale=256)
        cv2.imwrite(str(folder / f"{path.stem}.png"), dodge)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
