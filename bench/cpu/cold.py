"""Cold starts: processes from nothing to what a user waits for.

Each row is the median of processes that take turns, ms on the clock, mib resident at the highest.
"python" is the interpreter alone, which is in all the others.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2

from bench.bench_kernels import page
from bench.cpu.processes import CONVERT, medians
from bench.cpu.scale import Scale
from bench.findings import Finding, Table


def measure(scale: Scale) -> Iterator[Finding]:
    """A table."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "page.jpg"
        cv2.imwrite(str(path), page(scale.height, scale.width, None))
        python = [sys.executable, "-c"]
        convert = [*CONVERT, str(path), "-o", name]
        commands = {
            "python": [*python, "pass"],
            "import sketchify_rt": [*python, "from sketchify_rt import Sketchifier"],
            "sketchify-rt --version": [sys.executable, "-m", "sketchify_rt", "--version"],
            "sketchify-rt --help": [sys.executable, "-m", "sketchify_rt", "--help"],
            "first dodge": [*convert, "--mode", "dodge"],
            "first sketch": convert,
        }
        spent = medians(commands, scale.starts)
    yield Table(
        "cold",
        [{"what": what, "ms": each.seconds * 1e3, "mib": each.mib} for what, each in spent.items()],
    )
