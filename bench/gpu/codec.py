"""Decode alone and encode alone, in images a second.

From JPEG files of 1.4 megapixels in colour to luma on the device, and from sketches there to JPEG
and PNG files; batches, threads and streams are those of the pipeline. What is not installed the
processor does in its place, which is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.findings import Finding, NotRun, Table
from bench.gpu import jpegs
from bench.gpu.setup import Setup
from bench.gpu.stages import Stages, opened
from bench.gpu.timing import Run, compared
from sketchify_rt import Encoding


def measure(setup: Setup) -> Iterator[Finding]:
    """One table."""
    scale = setup.scale
    with opened(setup, "dodge") as sketchify:
        if sketchify.backend.note:
            yield NotRun("codec of the GPU", sketchify.backend.note)
        stages = Stages(setup, sketchify, jpegs.equal(scale.files, scale.height, scale.width))
        candidates: dict[str, Run] = {
            "decode JPEG": stages.decode,
            "encode JPEG": partial(stages.encode, Encoding("jpg")),
            "encode PNG": partial(stages.encode, Encoding("png")),
        }
        times, missing = compared(candidates, setup, rounds=3)
        yield from (NotRun(name, why) for name, why in missing.items())
    yield Table(
        "codec",
        [{"stage": name, "images_s": stages.images / ms * 1e3} for name, ms in times.items()],
    )
