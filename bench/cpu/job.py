"""The whole job: a folder of JPEG pages to PNG sketches, beside a loop as people write it.

The loops are of OpenCV, and for the sketch of PyTorch with the same weights, on all cores. Each is
a process of its own, from the start of Python on: images_s counts that too. others_take is how many
times as long a way takes as ours of the same mode and arithmetic, mib its resident memory at the
highest.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import harness
from bench.bench_batch import draw_pages
from bench.cpu.processes import CONVERT, medians
from bench.cpu.scale import Scale
from bench.findings import Finding, Table

OURS = "sketchify-rt convert"


def measure(scale: Scale) -> Iterator[Finding]:
    """A table."""
    with tempfile.TemporaryDirectory() as name:
        rows: list[harness.Row] = []
        for mode, count in ("dodge", scale.dodge_pages), ("sketch", scale.pages):
            (folder := Path(name) / mode).mkdir()
            draw_pages(folder / "pages", count)
            rows += _rows(mode, folder, count, scale)
        yield Table("job", rows)


def _rows(mode: str, folder: Path, count: int, scale: Scale) -> list[harness.Row]:
    pages, out = str(folder / "pages"), str(folder / "out")
    ours = [*CONVERT, pages, "-o", out, "--mode", mode]
    loop = [sys.executable, "-m", "bench.cpu.loop", pages, out, "--mode", mode]
    commands = {(OURS, "auto"): ours, ("OpenCV in a loop", "auto"): loop}
    if mode == "sketch":
        del commands["OpenCV in a loop", "auto"]
        for precision in ("fp32", "half"):
            commands[OURS, precision] = [*ours, "--precision", precision]
            commands["OpenCV and PyTorch in a loop", precision] = [*loop, "--precision", precision]
    named = {f"{way}\n{precision}": command for (way, precision), command in commands.items()}
    spent = dict(zip(commands, medians(named, scale.rounds).values(), strict=True))
    return [
        {
            "mode": mode,
            "way": way,
            "precision": precision,
            "images_s": count / each.seconds,
            "others_take": each.seconds / spent[OURS, precision].seconds,
            "mib": each.mib,
        }
        for (way, precision), each in spent.items()
    ]
