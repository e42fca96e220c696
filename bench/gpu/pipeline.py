"""From arrays to arrays and from JPEG bytes to JPEG bytes, in images a second.

Each stage is measured alone in the same rounds: upload, convert and download of arrays; decode,
convert and encode of files. ratio is the pipeline's speed over that of its slowest stage, which
`slowest` names: 1 means that the others cost no time. Memory, in MiB, of one run from the opening
of the engine: torch_mib is the most that torch had given out at once, device_mib what less was free
on the card afterwards, torch's and the codecs' caches included.
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
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.options import MAX_PIXELS, Mode

MODES: tuple[Mode, ...] = ("sketch", "dodge")
_JPEG = Encoding("jpg")


def measure(setup: Setup) -> Iterator[Finding]:
    """Arrays, then files."""
    yield from of_arrays(setup)
    yield from of_files(setup)


def of_arrays(setup: Setup) -> Iterator[Finding]:
    """From arrays to arrays, a row for each mode and kind of sizes."""
    yield from _table(setup, "arrays", None)


def of_files(setup: Setup) -> Iterator[Finding]:
    """From JPEG to JPEG, a row for each mode and kind of sizes."""
    yield from _table(setup, "pipeline", _JPEG)


def _table(setup: Setup, name: str, encoding: Encoding | None) -> Iterator[Finding]:
    scale = setup.scale
    rows: list[harness.Row] = []
    for sizes, make in ("equal", jpegs.equal), ("mixed", jpegs.mixed):
        files = make(scale.files, scale.height, scale.width)
        for mode in MODES:
            try:
                measured = _measured(setup, mode, files, encoding)
                rows.append({"mode": mode, "sizes": sizes, **measured})
            except Exception as error:  # the other mode is measured all the same
                yield NotRun(f"{name}, {mode}, {sizes}", reason(error))
            release(setup.device)
    yield Table(name, rows)


def _measured(
    setup: Setup, mode: Mode, files: list[bytes], encoding: Encoding | None
) -> harness.Row:
    inputs = files if encoding else [codec.decode(File("page", data), MAX_PIXELS) for data in files]
    memory = _Memory(setup.device)
    with opened(setup, mode) as sketchify:
        for _ in sketchify.map(inputs, encoding=encoding):
            pass
        used = memory.used()
        stages = Stages(setup, sketchify, files)
        alone: dict[str, Run] = {
            "upload": stages.upload,
            "convert": stages.convert,
            "download": stages.download,
        }
        if encoding:
            encode = partial(stages.encode, encoding)
            alone = {"decode": stages.decode, "convert": stages.convert, "encode": encode}
        times = harness.medians_ms(
            {"pipeline": partial(stages.pipeline, encoding), **alone},
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
