"""The kernels against OpenCV on one page, on one thread and on two.

A row is one kernel on one instruction set: median_ms is ours, baseline_ms that of OpenCV on as many
threads (NumPy for compose and hint, which OpenCV has not), taken in the same rounds. ratio says how
many times as fast we are, speedup how many times as fast as we are on one thread.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench import harness
from sketchify_rt import tiling
from sketchify_rt.image import CELL, Gray
from sketchify_rt.kernels import reference
from sketchify_rt.models import Model


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument("--page", type=Path, metavar="FILE", help="image to use, not a drawn one")
    parser.add_argument("--height", type=int, default=1401, help="of the page (default: 1401)")
    parser.add_argument("--width", type=int, default=992, help="of the page (default: 992)")
    options = parser.parse_args(argv)

    gray = page(options.height, options.width, options.page)
    rows = [
        row
        for name in OTHERS
        for threads in (1, 2)
        for row in measure(name, gray, threads, options.seconds)
    ]
    copy = {"copy": functools.partial(np.copyto, np.empty_like(gray), gray)}
    limit = harness.medians_ms(copy, seconds=0.2)["copy"]
    harness.report(rows, {"copying the page on one thread, ms": limit}, options.json)


def page(height: int, width: int, file: Path | None) -> Gray:
    """The image in `file`, or a drawn one of flats, shades, lines and grain, as uint8 (H, W)."""
    if file is not None:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise SystemExit(f"{file}: cannot be read as an image")
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, np.uint8)
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    canvas = (120 + 60 * np.sin(x / 170) + 50 * np.cos(y / 230)).astype(np.uint8)
    for _ in range(400):
        corners = rng.integers(-100, [width + 100, height + 100], (3, 2)).astype(np.int32)
        cv2.fillConvexPoly(canvas, corners, int(rng.integers(40, 256)))
        cv2.polylines(canvas, [corners], True, int(rng.integers(0, 60)), 2, cv2.LINE_AA)
    grain = rng.normal(0, 2, canvas.shape)
    soft = np.asarray(cv2.GaussianBlur(canvas, (3, 3), 0), np.float64)
    return np.asarray(np.clip(soft + grain, 0, 255), np.uint8)


def inputs(model: Model, height: int, width: int, stride: int = 1) -> tuple[Gray, ...]:
    """What a model reads of a drawn page, as one tile: its binary, and its hint if it takes one.

    Sides are multiples of the model's stride and of `stride`; each (H, W) uint8.
    """
    gray, stride = page(height, width, None), math.lcm(stride, model.manifest.stride)
    binary = reference.binarize(gray)
    tile = tiling.pad(binary, stride)
    if not model.manifest.takes_hint:
        return (tile,)
    return tile, tiling.pad(reference.hint(binary, reference.dodge(gray)), stride // CELL)


def measure(name: str, gray: Gray, threads: int, seconds: float) -> list[harness.Row]:
    """One row for each instruction set."""
    from sketchify_rt import _native  # here: a GPU's benchmark draws pages without it

    out, strength = np.empty_like(gray), () if name in ("binarize", "hint") else (256,)
    sources: tuple[NDArray[Any], ...] = (gray,)
    if name == "compose":
        sources = ((gray / 255).astype(np.float32),)
    if name == "hint":
        sources = reference.binarize(gray), reference.dodge(gray)
        out = reference.hint(*sources)
    candidates = {"other": functools.partial(OTHERS[name], *sources)}
    for isa in _native.isas():
        for count in {1, threads}:
            candidates[f"{isa} {count}"] = functools.partial(
                getattr(_native, name), *sources, out, *strength, count, isa
            )
    cv2.setNumThreads(threads)
    times = harness.medians_ms(candidates, seconds=seconds)
    return [
        {
            "name": name,
            "height": gray.shape[0],
            "width": gray.shape[1],
            "threads": threads,
            "isa": isa,
            "median_ms": times[f"{isa} {threads}"],
            "baseline_ms": times["other"],
            "ratio": times["other"] / times[f"{isa} {threads}"],
            "speedup": times[f"{isa} 1"] / times[f"{isa} {threads}"],
        }
        for isa in _native.isas()
    ]


def _opencv_binarize(gray: Gray) -> None:
    threshold = cv2.adaptiveThreshold(
        gray, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 9, 2
    )
    cv2.medianBlur(threshold, 3)


def _opencv_dodge(gray: Gray) -> None:
    cv2.divide(gray, cv2.GaussianBlur(gray, (21, 21), 0), scale=256)


OTHERS: dict[str, Callable[..., object]] = {
    "binarize": _opencv_binarize,
    "dodge": _opencv_dodge,
    "compose": reference.compose,
    "hint": reference.hint,
}
