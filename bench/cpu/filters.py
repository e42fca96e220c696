"""The filters on one page, on one thread and on all.

ms is the median time of a page, mp_s the megapixels in a second, others_take how many times as long
the way takes as ours on as many threads. "copy" is what the memory allows: reading and writing the
page once. scikit-image computes in float64, on one thread, and not to the same bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np

from bench import harness
from bench.bench_kernels import OTHERS, page
from bench.cpu.scale import Scale
from bench.findings import Finding, NotRun, Table, reason
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.options import Options

OURS = "sketchify-rt"
FILTERS = ("binarize", "dodge")


def measure(scale: Scale) -> Iterator[Finding]:
    """A table."""
    gray = page(scale.height, scale.width, None)
    try:
        skimage = _scikit_image()
    except ImportError as error:
        yield NotRun("scikit-image", reason(error))
        skimage = {}
    rows = []
    for name in FILTERS:
        for threads in sorted({1, Options().thread_count}):
            rows += _rows(name, threads, gray, skimage, scale)
    yield Table("filters", rows)


def _rows(
    name: str,
    threads: int,
    gray: Gray,
    skimage: dict[str, Callable[[Gray], object]],
    scale: Scale,
) -> list[harness.Row]:
    out = np.empty_like(gray)
    ways: dict[str, Callable[[], object]] = {
        OURS: partial(getattr(native, name), gray, threads=threads, out=out),
        "OpenCV": partial(OTHERS[name], gray),
    }
    if threads == 1 and name in skimage:
        ways["scikit-image"] = partial(skimage[name], gray)
    if threads == 1:
        ways["copy"] = partial(np.copyto, out, gray)
    cv2.setNumThreads(threads)
    times = harness.medians_ms(ways, seconds=scale.seconds, least=scale.rounds)
    return [
        {
            "filter": name,
            "threads": threads,
            "way": way,
            "ms": ms,
            "mp_s": gray.size / ms / 1e3,
            "others_take": ms / times[OURS],
        }
        for way, ms in times.items()
    ]


def _scikit_image() -> dict[str, Callable[[Gray], object]]:
    """The same filters as its users write them. Raises ImportError."""
    filters: Any = importlib.import_module("skimage.filters")
    square = importlib.import_module("skimage.morphology").footprint_rectangle((3, 3))

    def binarize(gray: Gray) -> object:
        # OpenCV's sigma for 9 taps: 0.3 * ((9 - 1) * 0.5 - 1) + 0.8.
        mean = filters.threshold_local(gray, 9, method="gaussian", offset=2, param=1.7)
        return filters.median(gray > mean, square)

    def dodge(gray: Gray) -> object:
        # OpenCV's sigma for 21 taps, reaching as far.
        blurred = filters.gaussian(gray, 3.5, mode="mirror", truncate=10 / 3.5, preserve_range=True)
        return np.minimum(255, gray / blurred * 256).astype(np.uint8)

    return {"binarize": binarize, "dodge": dodge}
