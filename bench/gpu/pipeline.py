"""From JPEG bytes to JPEG bytes, in images a second, and each stage alone in the same rounds.

ratio is the pipeline's speed over that of its slowest stage, which `slowest` names: 1 means that
the others cost no time. decode, convert and encode are images a second of the stages. Memory, in
MiB, of one run from the opening of the engine: torch_mib is the most that torch had given out at
once, device_mib what less was free on the card afterwards, torch's and the codecs' caches included.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from bench import harness
from bench.findings import Finding, NotRun, Table, reason
from bench.gpu import jpegs
from bench.gpu.setup import Setup
from bench.gpu.stages import Stages, opened
from bench.gpu.timing import Run, release
from sketchify_rt import Encoding
from sketchify_rt.options import Mode

MODES: tuple[Mode, ...] = ("sketch", "dodge")
_JPEG = Encoding("jpg")


def measure(setup: Setup) -> Iterator[Finding]:
    """A row for each mode and kind of sizes."""
    scale = setup.scale
    rows: list[harness.Row] = []
    for sizes, make in ("equal", jpegs.equal), ("mixed", jpegs.mixed):
        files = make(scale.files, scale.height, scale.width)
        for mode in MODES:
            try:
                rows.append({"mode": mode, "sizes": sizes, **_measured(setup, mode, files)})
            except Exception as error:  # the other mode is measured all the same
                yield NotRun(f"{mode}, {sizes}", reason(error))
            release(setup.device)
    yield Table("pipeline", rows)


def _measured(setup: Setup, mode: Mode, files: list[bytes]) -> harness.Row:
    memory = _Memory(setup.device)
    with opened(setup, mode) as sketchify:
        for _ in sketchify.map(files, encoding=_JPEG):
            pass
        used = memory.used()
        stages = Stages(setup, sketchify, files)
        alone: dict[str, Run] = {
            "decode": stages.decode,
            "convert": stages.convert,
            "encode": partial(stages.encode, _JPEG),
        }
        times = harness.medians_ms(
            {"pipeline": partial(stages.pipeline, _JPEG), **alone},
            seconds=setup.scale.seconds,
            least=min(3, setup.scale.rounds),
        )
    speeds = {name: stages.images / ms * 1e3 for name, ms in times.items()}
    slowest = min(alone, key=lambda stage: speeds[stage])
    return {
        "images_s": speeds["pipeline"],
        "ratio": speeds["pipeline"] / speeds[slowest],
        "slowest": slowest,
        **{stage: speeds[stage] for stage in alone},
        **used,
    }


class _Memory:
    """Of the device, from here on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        release(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._free, _ = torch.cuda.mem_get_info(device)
            self._allocated = torch.cuda.memory_allocated(device)

    def used(self) -> dict[str, float]:
        """MiB; zeros where there is no such device."""
        if self._device.type == "cpu":
            return {"torch_mib": 0.0, "device_mib": 0.0}
        free, _ = torch.cuda.mem_get_info(self._device)
        peak = torch.cuda.max_memory_allocated(self._device) - self._allocated
        return {"torch_mib": peak / 2**20, "device_mib": (self._free - free) / 2**20}
