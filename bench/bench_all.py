"""Everything on a processor, beside what one would pick instead: filters, U-Net, job, growth, cold.

What each figure means stands at the top of bench/cpu/NAME.py. Tables are printed, and the file of
results written anew, as soon as they are measured. `python -m bench report` makes tables and plots
of the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, replace

from bench import harness
from bench.cpu.scale import QUICK, Scale
from bench.findings import Report, results_file

PARTS = ("filters", "unet", "job", "growth", "cold")


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="less of all, and no torch.compile")
    parser.add_argument("--rembg", default="", metavar="PYTHON", help="interpreter that has rembg")
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    scale = QUICK if options.quick else replace(Scale(), seconds=options.seconds)
    scale = replace(scale, rembg=options.rembg)
    machine = harness.machine()
    quick = ["quick"] if options.quick else []
    file = options.json or results_file(machine, "cpu", *quick, *options.parts)
    scale_row = asdict(scale) | {"rembg": bool(scale.rembg)}  # not where it lies on this machine
    run(scale, options.parts or PARTS, Report(file, machine=machine, scale=scale_row))
    print(f"\nwritten to {file}")


def run(scale: Scale, parts: Sequence[str], report: Report) -> None:
    """Measures parts by name."""
    for name in parts:
        with report.part(name):
            for finding in importlib.import_module(f"bench.cpu.{name}").measure(scale):
                report.add(finding)
