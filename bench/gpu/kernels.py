"""The kernels of a GPU in gigapixels a second, and as a share of what the card could do.

First, on one page, the difference from the NumPy reference: the percentage of pixels that are off,
and by how many levels at most. Of our kernels both are 0, or they are wrong.

Then two batches of pages, one of equal pages and one of pages of many sizes ("ragged"), each larger
than any L2 cache and taking turns with another like it. ms is the device's time for a batch, gpx_s
its pixels over that time, host_ms what the host takes to launch it. The limit is the longer of two
times: to read each byte once and write each result once at the measured copy bandwidth, and to do
the operations of the banded products at the measured FP16 matmul rate. limit_share is the limit
over ms; bound names it. to_torch is how many times as fast it is as torch's operators, eager, in
FP16 or in float32, whichever is faster; on the ragged batch they take one page after the other.

At the end one page: ms until its result is there, host_ms of them the launch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bench import harness
from bench.bench_kernels import page
from bench.findings import Finding, NotRun, Table, reason
from bench.gpu.setup import Limits, Setup
from bench.gpu.timing import DeviceTimer, Run, compared, finished, host_ms, release
from bench.gpu.torch_filters import FILTERS
from bench.gpu.ways import EAGER, Step, Way, Ways
from sketchify_rt import tensors
from sketchify_rt.image import Gray
from sketchify_rt.kernels import reference

Batch = Tensor | list[Tensor]

_BATCHES = 2  # that take turns


def _flop(halo: int, kept: int = 64) -> int:
    """FLOP a pixel of the products with bands in kernels/triton_jit.py, a multiply-add being two.

    Down the columns each of 64 rows is a sum over 64 and `halo` more; across the rows each pixel is
    a sum over 64, twice, since the sums down are in two parts. `kept` of the rows are stored.
    """
    return round(2 * (64 + halo + 2 * 64) * 64 / kept)


FLOP_PER_PIXEL = {"binarize": _flop(16, 62), "dodge": _flop(32), "compose": 0}
BYTES_PER_PIXEL = {"binarize": 2, "dodge": 2, "compose": 3}


def measure(setup: Setup) -> Iterator[Finding]:
    """Differences, the batches, and one page."""
    ways = Ways(setup)
    yield from ways.open()
    base = page(setup.scale.height, setup.scale.width, None)
    found = {name: ways.of(name) for name in FILTERS}
    yield from _differences(setup, found, base)
    for kind, make in ("equal", _equal), ("ragged", _ragged):
        grays = make(setup, base)
        rows: list[harness.Row] = []
        for name in FILTERS:
            batches = [_tones(setup, batch) for batch in grays] if name == "compose" else grays
            steps = {label: getattr(way, kind) for label, way in found[name].items()}
            made, missing = _measured(setup, name, steps, batches)
            rows += made
            yield from (NotRun(f"{name}, {label}, {kind}", why) for label, why in missing.items())
        yield Table(kind, rows)
    release(setup.device)
    yield _one_page(setup, found, base)


def _differences(
    setup: Setup, found: Mapping[str, Mapping[str, Way]], base: Gray
) -> Iterator[Finding]:
    rows: list[harness.Row] = []
    for name, ways in found.items():
        image = torch.from_numpy(base).to(setup.device)
        source = _tones(setup, image[None])[0] if name == "compose" else image
        array = source.cpu().numpy()
        expected = getattr(reference, name)(array if name != "compose" else array.astype("float32"))
        for label, way in ways.items():
            try:
                result = way.ragged([source])[0].cpu().numpy()
            except Exception as error:  # the others are compared all the same
                yield NotRun(f"{name}, {label}, difference", reason(error))
                continue
            off = np.abs(result.astype(np.int32) - expected)
            rows.append(
                {
                    "filter": name,
                    "way": label,
                    "off": 100 * float(np.mean(off > 0)),
                    "largest": int(off.max()),
                }
            )
    yield Table("differences", rows)


def _measured(
    setup: Setup, name: str, steps: Mapping[str, Step], batches: Sequence[Batch]
) -> tuple[list[harness.Row], dict[str, str]]:
    """A row for each way on batches of one kind, and why others did not run."""
    candidates = {label: _by_turns(step, batches) for label, step in steps.items()}
    timer = DeviceTimer(setup.device)
    times, missing = compared(candidates, setup, calls=_BATCHES, timer=timer)
    pixels = sum(image.numel() for batch in batches for image in batch) / len(batches)
    eager = min((times[label] for label in EAGER if label in times), default=None)
    rows: list[harness.Row] = [
        {
            "filter": name,
            "way": label,
            "gpx_s": pixels / ms / 1e6,
            "ms": ms,
            "host_ms": host_ms(candidates[label], setup),
            **_limit(name, pixels, ms, setup.limits),
            "to_torch": None if eager is None else eager / ms,
        }
        for label, ms in times.items()
    ]
    return rows, missing


def _limit(name: str, pixels: float, ms: float, limits: Limits | None) -> dict[str, object]:
    if limits is None:
        return {"limit_share": None, "bound": "not measured"}
    memory = BYTES_PER_PIXEL[name] * pixels / limits.copy * 1e3
    arithmetic = FLOP_PER_PIXEL[name] * pixels / limits.flop * 1e3
    bound = "memory" if memory >= arithmetic else "arithmetic"
    return {"limit_share": max(memory, arithmetic) / ms, "bound": bound}


def _one_page(setup: Setup, found: Mapping[str, Mapping[str, Way]], base: Gray) -> Table:
    rows: list[harness.Row] = []
    image = torch.from_numpy(base).to(setup.device)
    for name, ways in found.items():
        source = _tones(setup, image[None]) if name == "compose" else image[None]
        launches = {label: _by_turns(way.ragged, [list(source)]) for label, way in ways.items()}
        runs = {label: finished(run, setup.device) for label, run in launches.items()}
        times, _ = compared(runs, setup, calls=2)  # what does not run was named before
        rows += [
            {"filter": name, "way": label, "ms": ms, "host_ms": host_ms(launches[label], setup)}
            for label, ms in times.items()
        ]
    return Table("one page", rows)


def _by_turns(step: Step, batches: Sequence[Batch]) -> Run:
    turns = itertools.cycle(batches)
    return lambda: step(next(turns))


def _equal(setup: Setup, base: Gray) -> list[Batch]:
    """Pages like `base`, each shifted and with noise of its own, (N, H, W)."""
    random = setup.generator()
    gray = torch.from_numpy(base).to(setup.device)
    batches: list[Batch] = []
    for _ in range(_BATCHES):
        shape = (setup.scale.pages, *gray.shape)
        batch = torch.empty(shape, dtype=torch.uint8, device=setup.device)
        for index, target in enumerate(batch):
            noise = torch.randint(-4, 5, gray.shape, device=setup.device, generator=random)
            shifted = gray.roll((37 * index, 53 * index), (0, 1))
            target.copy_((shifted + noise).clamp_(0, 255))
        batches.append(batch)
    return batches


def _ragged(setup: Setup, base: Gray) -> list[Batch]:
    """The same cut to sizes of 0.7 to 1 of it, at random, laid out as the decoder does it."""
    shares = np.random.default_rng(0).uniform(0.7, 1, (setup.scale.pages, 2))
    sizes = np.maximum(11, shares * base.shape).astype(int).tolist()
    batches: list[Batch] = []
    for batch in _equal(setup, base):
        cut = tensors.empty([(height, width) for height, width in sizes], setup.device)
        for target, image in zip(cut, batch, strict=True):
            target.copy_(image[: target.shape[0], : target.shape[1]])
        batches.append(cut)
    return batches


def _tones(setup: Setup, batch: Batch) -> Batch:
    """Pixels as the U-Net would give them."""
    if isinstance(batch, Tensor):
        return batch.to(setup.half) / 255
    return [image.to(setup.half) / 255 for image in batch]
