"""A folder of pages to PNG: each stage alone, the whole pipeline, and a plain OpenCV loop.

First table: every stage alone over all pages on one thread, so alone_ms is its processor time a
page.

Second table: the pipeline from files to files on all cores. core_ms is cores x wall time a page;
waste is core_ms over the sum of the mode's stages alone, so 1 means that nothing waits, and nothing
is in another's way. ratio is images/s against the OpenCV loop (imread, cvtColor, GaussianBlur,
divide, imwrite, on the same cores). Stages, pipeline and loop take turns in the same rounds. The
U-Net computes in what --precision is on this processor, which the row tells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from bench import harness
from sketchify_rt import Encoding, Sketchifier, models, strokes, tiling
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.journal import Journal
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Rules, Settings
from sketchify_rt.batch.runner import run
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.batch.staging import Staging
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.files import write
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.options import MAX_PIXELS, PRECISIONS, Mode, Options, Precision

T = TypeVar("T")

MODES: tuple[Mode, ...] = ("dodge", "sketch")


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--pages", type=Path, default=Path("samples"), help="folder of pictures (default: samples)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the U-Net")
    options = parser.parse_args(argv)
    jobs = list(Sources([str(options.pages)], Path("none")))
    with tempfile.TemporaryDirectory() as folder:
        measured = {
            mode: measure(mode, options.precision, jobs, Path(folder), options.seconds)
            for mode in MODES
        }
    alone = [
        {"mode": mode, "stage": stage, "alone_ms": ms}
        for mode, (stages, _) in measured.items()
        for stage, ms in stages.items()
    ]
    print(harness.table(alone))
    print()
    rows = [row for _, row in measured.values()]
    harness.report(rows, {"pages": len(jobs), "stages": alone}, options.json)


def measure(
    mode: Mode, precision: Precision, jobs: list[Job], folder: Path, seconds: float
) -> tuple[dict[str, float], harness.Row]:
    """Milliseconds a page of each stage alone, and the row of the mode."""
    files = [job.source for job in jobs]
    # Twice over all pages: at the end a core or two have nothing left to do, and of few pages that
    # is a large share.
    names = [(job.source, f"{again}/{job.stem}.png") for again in range(2) for job in jobs]
    cores = Options().thread_count
    cv2.setNumThreads(cores)
    with (
        Sketchifier(mode=mode, precision=precision, device="cpu") as engine,
        closing(open_output(folder / mode, engine.options)) as to,
    ):

        def ours() -> None:
            twice = [Item(number, *name) for number, name in enumerate(names)]
            run(engine, twice, to, Encoding(), workers=cores)

        works = stages(engine, files, folder / "page.png")
        times = harness.medians_ms(
            {
                **works,
                "ours": ours,
                "opencv": partial(opencv_loop, files, folder),
            },
            seconds=seconds,
            least=3,
        )
    page_ms = {name: time / len(files) for name, time in times.items()}
    page_ms["ours"] /= 2
    alone = {name: page_ms[name] for name in works}
    core_ms = cores * page_ms["ours"]
    row = {
        "mode": mode,
        "precision": engine.precision or "",
        "cores": cores,
        "images_s": 1e3 / page_ms["ours"],
        "opencv_images_s": 1e3 / page_ms["opencv"],
        "ratio": page_ms["opencv"] / page_ms["ours"],
        "core_ms": core_ms,
        "alone_ms": sum(alone.values()),
        "waste": core_ms / sum(alone.values()),
    }
    return alone, row


def open_output(root: Path, options: Options) -> Output:
    """An output folder in which all is converted each time, without a journal on the disk."""
    journal, settings = Journal(None), Settings(options, Encoding(), 200)
    to = Output(
        root, "png", journal, Staging(root, journal.exclusive), settings, Rules("overwrite")
    )
    to.open()
    return to


def stages(engine: Sketchifier, files: list[Path], output: Path) -> dict[str, Callable[[], object]]:
    """The stages of a mode, each over all files on one thread, on inputs that are there already."""
    pages = [decode(path) for path in files]
    works: dict[str, Callable[[], object]] = {"read and decode": partial(each, decode, files)}
    if engine.options.mode == "dodge":
        results = [native.dodge(page) for page in pages]
        works["dodge"] = partial(each, native.dodge, pages)
    else:
        model = models.load("lite")
        infer = engine.backend.open_painter(model, threads=1, workers=1).runtime.infer

        def read(grays: Sequence[Gray]) -> tuple[list[Gray], list[Gray]]:
            backend = engine.backend
            wishes = [strokes.Wish.of(gray, engine.options, takes_hint=True) for gray in grays]
            binaries, pages = strokes.find_binaries(backend, grays, grays, wishes, threads=1)
            return binaries, strokes.find_hints(backend, grays, binaries, pages, wishes, threads=1)

        binaries, planes = read(pages)
        tiles = [
            (tiling.pad(binary, model.manifest.stride)[None], plane[None])
            for binary, plane in zip(binaries, planes, strict=True)
        ]
        tones = [infer(*tile)[0] for tile in tiles]
        results = [native.compose(tone) for tone in tones]
        works["binary and hint"] = partial(each, lambda page: read([page]), pages)
        works["infer"] = partial(each, lambda tile: infer(*tile), tiles)
        works["compose"] = partial(each, native.compose, tones)
    encoded = [codec.encode(result, Encoding()) for result in results]
    works["encode"] = partial(each, lambda image: codec.encode(image, Encoding()), results)
    works["write"] = partial(each, partial(write, output), encoded)
    return works


def each(step: Callable[[T], object], inputs: Iterable[T]) -> None:
    """Calls `step` with each of the inputs."""
    for value in inputs:
        step(value)


def decode(path: Path) -> Gray:
    """A page as luma."""
    return codec.decode(File(str(path), path.read_bytes()), MAX_PIXELS)


def opencv_loop(files: list[Path], folder: Path) -> None:
    """The dodge filter as most people would write it."""
    for path in files:
        gray = cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2GRAY)
        dodge = cv2.divide(gray, cv2.GaussianBlur(gray, (21, 21), 0), scale=256)
        cv2.imwrite(str(folder / f"{path.stem}.png"), dodge)
