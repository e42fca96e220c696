"""Cold starts: processes from nothing to what a user waits for.

Each row is the median of processes that take turns, ms on the clock, mib resident at the highest.
"python" is the interpreter alone, which is in all the others; "from sketchify_rt ..." brings NumPy.
rembg, a tool of the same kind that many use, is measured as its users do (issues 169 and 736 of
danielgatis/rembg), where `--rembg` names an interpreter that has it.
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
from bench.findings import Finding, NotRun, Table


def measure(scale: Scale) -> Iterator[Finding]:
    """A table."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "page.jpg"
        cv2.imwrite(str(path), page(scale.height, scale.width, None))
        python = [sys.executable, "-c"]
        convert = [*CONVERT, str(path), "-o", name]
        commands = {
            "python": [*python, "pass"],
            "import numpy": [*python, "import numpy"],
            "import sketchify_rt": [*python, "import sketchify_rt"],
            "from sketchify_rt import Sketchifier": [
                *python,
                "from sketchify_rt import Sketchifier",
            ],
            "sketchify-rt --version": [sys.executable, "-m", "sketchify_rt", "--version"],
            "sketchify-rt --help": [sys.executable, "-m", "sketchify_rt", "--help"],
            "first dodge": [*convert, "--mode", "dodge"],
            "first sketch": convert,
        }
        if scale.rembg:
            commands |= _rembg(scale.rembg)
        else:
            yield NotRun("rembg", "--rembg names no interpreter that has it")
        spent = medians(commands, scale.starts)
    yield Table(
        "cold",
        [{"what": what, "ms": each.seconds * 1e3, "mib": each.mib} for what, each in spent.items()],
    )


def _rembg(python: str) -> dict[str, list[str]]:
    run = "import sys; from rembg.cli import main; sys.exit(main())"
    return {
        "rembg: python": [python, "-c", "pass"],
        "rembg: from rembg.bg import remove": [python, "-c", "from rembg.bg import remove"],
        "rembg --version": [python, "-c", run, "--version"],
        "rembg --help": [python, "-c", run, "--help"],
    }
