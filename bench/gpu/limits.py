"""What the card reaches: the limits of all that is measured after.

copy_tb_s: terabytes read and written a second by copies on the device, of buffers larger than any
cache. matmul_tflop_s: FP16 products of square matrices of random numbers, since a card draws more
power, and runs slower, on these than on zeros.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from bench.findings import Finding, NotRun, Table
from bench.gpu.setup import Limits, Setup
from bench.gpu.timing import DeviceTimer, Run, compared

_AT_ONCE = 4  # copies or products between two events


def measure(setup: Setup) -> Iterator[Finding]:
    """One table; also for the parts that come after."""
    candidates = {"copy": _copy(setup), "matmul": _matmul(setup)}
    times, missing = compared(candidates, setup, timer=DeviceTimer(setup.device))
    yield from (NotRun(name, why) for name, why in missing.items())
    if missing:
        return
    setup.limits = Limits(
        copy=_AT_ONCE * 2 * setup.scale.copy_bytes / times["copy"] * 1e3,
        flop=_AT_ONCE * 2 * setup.scale.matmul**3 / times["matmul"] * 1e3,
    )
    yield Table(
        "limits",
        [{"copy_tb_s": setup.limits.copy / 1e12, "matmul_tflop_s": setup.limits.flop / 1e12}],
    )


def _copy(setup: Setup) -> Run:
    """Copies of buffers by turns, each larger than any cache."""
    random = setup.generator()
    pairs = [
        [
            torch.randint(
                256,
                (setup.scale.copy_bytes,),
                dtype=torch.uint8,
                device=setup.device,
                generator=random,
            )
            for _ in range(2)
        ]
        for _ in range(2)
    ]
    turns = itertools.cycle(pairs)

    def run() -> None:
        for _ in range(_AT_ONCE):
            source, target = next(turns)
            target.copy_(source)

    return run


def _matmul(setup: Setup) -> Run:
    random, side = setup.generator(), setup.scale.matmul
    matrices = [
        torch.randn(side, side, device=setup.device, generator=random).to(setup.half)
        for _ in range(3)
    ]
    product = torch.empty_like(matrices[0])
    turns = itertools.cycle(itertools.permutations(matrices, 2))

    def run() -> None:
        for _ in range(_AT_ONCE):
            torch.mm(*next(turns), out=product)

    return run
