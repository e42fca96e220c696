"""Everything on an NVIDIA GPU: limits of the card, kernels, U-Net, codec, pipeline, agreement.

Runs what is installed, names what is not, and goes on where something fails. What each figure means
stands at the top of bench/gpu/NAME.py. Tables are printed, and the file of results written anew, as
soon as they are measured, so that a run that is stopped leaves what it has. Made to take four
minutes on an H200, and one with --quick, by estimate. A fault of the card itself, such as an
illegal address, ends all that follows in the process: then name the other parts in a new run.

--first checks whether a card computes what it should, and how fast, in less than four minutes,
whatever else is installed; see bench/gpu/first.py.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import harness
from bench.findings import Report, results_file

if TYPE_CHECKING:
    from bench.gpu.setup import Setup

PARTS = ("kernels", "unet", "codec", "pipeline", "agreement")


def main(argv: list[str]) -> None:
    """Measures and reports. Exits with 1 if there is no GPU, or if --first finds an error."""
    started = time.monotonic()
    parser = harness.parser(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="less of all, and no torch.compile")
    parser.add_argument(
        "--first", action="store_true", help="check a card for the first time, in four minutes"
    )
    parser.add_argument(
        "--engine",
        type=Path,
        metavar="FILE",
        help='TensorRT engine of "lite"; else from the cache',
    )
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.first and options.parts:
        parser.error(f"--first takes no parts, got {', '.join(options.parts)}: leave them out")
    try:
        import torch
    except ImportError as error:
        raise SystemExit(f"bench gpu needs torch, and an NVIDIA GPU: {error}") from error
    if not torch.cuda.is_available():
        raise SystemExit(f"bench gpu needs an NVIDIA GPU; torch {torch.__version__} sees none")

    from bench.gpu.facts import facts
    from bench.gpu.setup import Scale, Setup

    device = torch.device("cuda", torch.cuda.current_device())
    if options.first:
        from bench.gpu import first

        raise SystemExit(first.main(device, options.seconds / 10, options.json, started))
    scale = Scale(seconds=options.seconds)
    if options.quick:
        seconds = options.seconds / 10
        scale = replace(scale, seconds=seconds, pages=64, files=48, images=192, compiling=False)
    setup = Setup(device, scale, options.engine)
    machine = facts(device)
    quick = ["quick"] if options.quick else []
    file = options.json or results_file(machine, "card", *quick, *options.parts)
    # TensorRT and graphs want a stream that is not the default one.
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        run(setup, options.parts or PARTS, Report(file, machine=machine, scale=vars(scale)))
    print(f"\nwritten to {file}")


def run(setup: Setup, parts: Sequence[str], report: Report) -> None:
    """Measures parts by name, the limits first."""
    for name in ("limits", *parts):
        with report.part(name):
            for finding in importlib.import_module(f"bench.gpu.{name}").measure(setup):
                report.add(finding)
