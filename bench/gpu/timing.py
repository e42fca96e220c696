"""Time on a GPU: of the device alone, of the host alone, and until a result is there."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from bench import harness
from bench.findings import reason
from bench.gpu.setup import Setup

Run = Callable[[], object]

# Seconds that the device spins before a measured call; four times as long until the host is ahead.
_FIRST_LEAD = 0.0005
_LONGEST_LEAD = 0.128
_CYCLES = 2e9  # a second of spinning, about


class DeviceTimer:
    """A `harness.Timer` of what the device does, without the time that the host takes to launch it.

    The device spins until the host has handed over the whole call, which then runs between two CUDA
    events without a gap. A call that the host cannot hand over ahead, because it waits for the
    device in between or has more launches than a stream queues, is timed without the spin: then its
    time is that of both. On the processor it is wall time.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._leads: dict[Run, float] = {}

    def __call__(self, run: Run) -> float:
        """Seconds."""
        if not self._on_gpu:
            return harness.wall_seconds(run)
        lead = self._leads.get(run, _FIRST_LEAD)
        while True:
            seconds, ahead = _between_events(run, lead)
            if ahead or not lead:
                self._leads[run] = lead
                return seconds
            lead = 4 * lead if lead < _LONGEST_LEAD else 0


def _between_events(run: Run, lead: float) -> tuple[float, bool]:
    """Seconds of `run` on the device, and whether it was handed over before the device began."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    if lead:
        torch.cuda._sleep(int(lead * _CYCLES))  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    ahead = not start.query()  # type: ignore[no-untyped-call]
    end.synchronize()
    return start.elapsed_time(end) / 1e3, ahead


def synchronize(device: torch.device) -> None:
    """Waits for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def finished(run: Run, device: torch.device) -> Run:
    """`run`, and the wait for its result."""

    def whole() -> None:
        run()
        synchronize(device)

    return whole


def host_ms(run: Run, setup: Setup) -> float:
    """Median milliseconds that the host takes to hand a call over to an idle device."""
    seconds = []
    for _ in range(setup.scale.rounds):
        synchronize(setup.device)
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    synchronize(setup.device)
    return statistics.median(seconds) * 1e3


def compared(
    candidates: Mapping[str, Run],
    setup: Setup,
    *,
    calls: int = 1,
    rounds: int = 15,
    timer: harness.Timer = harness.wall_seconds,
) -> tuple[dict[str, float], dict[str, str]]:
    """Median milliseconds of those that run, and why the others do not.

    calls: of each to warm up. rounds: at least, but no more than `setup.scale` has.
    """
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, run in candidates.items():
        try:
            for _ in range(calls):
                finished(run, setup.device)()
            runs[name] = run
        except Exception as error:  # whatever it is, the others are measured, and it is reported
            missing[name] = reason(error)
        release(setup.device)
    if not runs:
        return {}, missing
    scale = setup.scale
    least = min(rounds, scale.rounds)
    return harness.medians_ms(runs, seconds=scale.seconds, least=least, timer=timer), missing


def release(device: torch.device) -> None:
    """Gives memory that nothing uses back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
