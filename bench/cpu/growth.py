"""How time and memory grow with the work: pixels, files, threads, images in flight.

pixels: one PNG of so many megapixels, a page repeated. files: so many small JPEG files, in mode
dodge. Both are whole processes from the start of Python on; mib is their resident memory at the
highest, us_each the microseconds for each kilopixel or file beyond those of the smallest row, so a
straight line has the same in every row. threads: the same pages on so many threads. batch: so many
pages handed to `Sketchifier.map` at once, in one process.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bench import harness
from bench.bench_batch import draw_pages
from bench.bench_kernels import page
from bench.cpu.processes import CONVERT, Spent, run
from bench.cpu.scale import Scale
from bench.findings import Finding, Table
from sketchify_rt import Sketchifier
from sketchify_rt.image import Gray
from sketchify_rt.options import Options

_SIDE = 64  # of a small file, in pixels


def measure(scale: Scale) -> Iterator[Finding]:
    """Four tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mode in ("sketch", "dodge"):
            yield Table(f"pixels, {mode}", _pixels(folder, mode, scale))
        yield Table("files", _files(folder, scale))
        yield Table("threads", _threads(folder, scale))
        yield Table("batch", _batch(scale))


def _pixels(folder: Path, mode: str, scale: Scale) -> list[harness.Row]:
    drawn = page(scale.height, scale.width, None)
    counts, spent = [], []
    for megapixels in scale.megapixels:
        side = round(math.sqrt(megapixels * 1e6))
        times = (-(-side // drawn.shape[0]), -(-side // drawn.shape[1]))
        path = folder / "page.png"
        cv2.imwrite(str(path), np.tile(drawn, times)[:side, :side])
        counts.append(side * side / 1e3)
        spent.append(run([*CONVERT, str(path), "-o", str(folder / "out"), "--mode", mode]))
    rows = _grown(counts, spent)
    return [
        {"megapixels": megapixels, **row}
        for megapixels, row in zip(scale.megapixels, rows, strict=True)
    ]


def _files(folder: Path, scale: Scale) -> list[harness.Row]:
    drawn = page(scale.height, scale.width, None)
    rng = np.random.default_rng(1)
    source, spent = folder / "files", []
    source.mkdir()
    made = 0
    for count in scale.files:
        while made < count:
            top, left = (int(rng.integers(length - _SIDE)) for length in drawn.shape)
            cut = drawn[top : top + _SIDE, left : left + _SIDE]
            cv2.imwrite(str(source / f"{made:06}.jpg"), cut)
            made += 1
        out = str(folder / f"out {count}")
        spent.append(run([*CONVERT, str(source), "-o", out, "--mode", "dodge"]))
    rows = _grown(scale.files, spent)
    return [{"files": count, **row} for count, row in zip(scale.files, rows, strict=True)]


def _grown(counts: Sequence[float], spent: Sequence[Spent]) -> list[harness.Row]:
    first = spent[0].seconds
    return [
        {
            "seconds": each.seconds,
            "mib": each.mib,
            "us_each": (each.seconds - first) / (count - counts[0]) * 1e6 if number else "",
        }
        for number, (count, each) in enumerate(zip(counts, spent, strict=True))
    ]


def _threads(folder: Path, scale: Scale) -> list[harness.Row]:
    pages = folder / "pages"
    draw_pages(pages, scale.pages)
    paths = sorted(pages.iterdir())
    rows: list[harness.Row] = []
    for mode in ("sketch", "dodge"):
        counts = sorted({1, Options().thread_count})
        engines = {str(n): Sketchifier(mode=mode, threads=n, device="cpu") for n in counts}
        ways = {name: partial(_all_of, engine, paths) for name, engine in engines.items()}
        times = harness.medians_ms(ways, seconds=scale.seconds, least=3)
        for engine in engines.values():
            engine.close()
        rows += [
            {
                "mode": mode,
                "threads": int(name),
                "images_s": len(paths) / ms * 1e3,
                "speedup": times["1"] / ms,
            }
            for name, ms in times.items()
        ]
    return rows


def _batch(scale: Scale) -> list[harness.Row]:
    drawn = page(scale.height, scale.width, None)
    with Sketchifier(device="cpu") as engine:
        ways: dict[str, Callable[[], object]] = {
            str(count): partial(_all_of, engine, [drawn] * count) for count in scale.batch
        }
        times = harness.medians_ms(ways, seconds=scale.seconds, least=3)
    return [
        {"images": int(count), "images_s": int(count) / ms * 1e3} for count, ms in times.items()
    ]


def _all_of(engine: Sketchifier, images: Sequence[Gray | Path]) -> None:
    for _ in engine.map(images):
        pass
