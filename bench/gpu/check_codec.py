"""JPEG files read and written on the GPU, compared with OpenCV.

decode: `apart` counts pixels that differ between a file decoded alone and in a batch. largest_level
and within_1, a percentage, compare the luma with OpenCV's. The package decodes with DALI; the other
decoders are nvImageCodec's, each kind of backend alone, for comparison.

encode: mean_level is the mean difference between a page and its JPEG file, opencv_level the same of
OpenCV's file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from bench import harness
from bench.findings import Finding, NotRun, Table, WrongError, reason
from bench.gpu import jpegs
from bench.gpu.setup import Setup
from bench.gpu.timing import Run, compared, synchronize
from sketchify_rt import tensors
from sketchify_rt.codec.cuda import missing
from sketchify_rt.codec.dali import JpegDecoder
from sketchify_rt.codec.nvimagecodec import JpegEncoder
from sketchify_rt.image import Gray

Decoder = Callable[[Sequence[bytes]], Sequence[Tensor | None]]

THREADS = (4, 8, 15)
_QUALITY = 95
_BACKENDS = ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")


def decode(setup: Setup) -> Iterator[Finding]:
    """JPEG files to luma.

    Raises:
        WrongError: DALI gives other pixels alone than in a batch, or other luma than OpenCV.
    """
    scale = setup.scale
    files = jpegs.mixed(min(24, scale.files), scale.height, scale.width)
    equal = jpegs.equal(scale.files, scale.height, scale.width)
    rows: list[dict[str, Any]] = []
    for name, opened in _decoders(setup).items():
        try:
            rows.append({"decoder": name, **_decoded(setup, opened(), files, equal)})
        except Exception as error:
            if name == "DALI":
                raise
            yield NotRun(f"decode with {name}", reason(error))  # nothing depends on it
    yield from (NotRun(f"decode with {package}", "not installed") for package in missing())
    if rows:
        yield Table("decode", [*rows])
    for row in rows:
        if row["decoder"] == "DALI" and (
            row["apart"] or row["largest_level"] > 3 or row["within_1"] < 98
        ):
            raise WrongError(f"expected 0 apart, at most 3 levels, 98 % within 1: {row}")


def _decoders(setup: Setup) -> dict[str, Callable[[], Decoder]]:
    found: dict[str, Callable[[], Decoder]] = {}
    absent = missing()
    if not any("dali" in package for package in absent):
        found["DALI"] = partial(_dali, setup)
    if setup.device.type == "cuda" and not any("nvimgcodec" in package for package in absent):
        found |= {f"nvImageCodec {kind}": partial(_nvimagecodec, setup, kind) for kind in _BACKENDS}
    return found


def _dali(setup: Setup) -> Decoder:
    decoder = JpegDecoder(setup.device, max(THREADS))
    return lambda files: decoder(files, [1] * len(files))


def _nvimagecodec(setup: Setup, kind: str) -> Decoder:
    library: Any = importlib.import_module("nvidia.nvimgcodec")
    decoder = library.Decoder(
        device_id=setup.device.index or 0,
        max_num_cpu_threads=max(THREADS),
        backends=[library.Backend(getattr(library.BackendKind, kind))],
    )
    params = library.DecodeParams(color_spec=library.ColorSpec.GRAY)

    def decoded(files: Sequence[bytes]) -> list[Tensor | None]:
        stream = torch.cuda.current_stream(setup.device).cuda_stream
        images = decoder.decode(list(files), params=params, cuda_stream=stream)
        synchronize(setup.device)
        return [
            None
            if image is None
            else torch.as_tensor(image, device=setup.device).reshape(image.height, image.width)
            for image in images
        ]

    return decoded


def _decoded(
    setup: Setup, decoder: Decoder, files: Sequence[bytes], equal: Sequence[bytes]
) -> dict[str, Any]:
    alone = [_luma(decoder([data]))[0] for data in files]
    together = [_luma(decoder(files)) for _ in range(2)]
    apart = sum(
        int((one != other).sum())
        for batch in together
        for one, other in zip(alone, batch, strict=True)
    )
    off = np.concatenate(
        [
            np.abs(luma.astype(np.int16) - _opencv(data)).ravel()
            for luma, data in zip(together[0], files, strict=True)
        ]
    )
    times, failed = compared({"decode": lambda: decoder(equal)}, setup, rounds=3)
    if failed:
        raise WrongError(failed["decode"])
    return {
        "files": len(files),
        "apart": apart,
        "largest_level": int(off.max()),
        "within_1": 100 * float(np.mean(off <= 1)),
        "images_s": len(equal) / times["decode"] * 1e3,
    }


def _luma(planes: Sequence[Tensor | None]) -> list[Gray]:
    if any(plane is None for plane in planes):
        raise WrongError(f"{sum(plane is None for plane in planes)} sound files were not decoded")
    return [plane.cpu().numpy() for plane in planes if plane is not None]


def _opencv(data: bytes) -> Gray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(image, np.uint8)


def encode(setup: Setup) -> Iterator[Finding]:
    """Luma to JPEG files by nvImageCodec, with several numbers of threads.

    Raises:
        WrongError: A page was not encoded, or its file is further from it than OpenCV's.
    """
    if absent := [package for package in missing() if "nvimgcodec" in package]:
        yield NotRun(f"encode with {absent[0]}", "not installed")
        return
    scale = setup.scale
    grays = [_opencv(data) for data in jpegs.equal(scale.files, scale.height, scale.width)]
    images = tensors.upload(grays, setup.device)
    encoders = {threads: JpegEncoder(setup.device, threads) for threads in THREADS}
    runs: dict[str, Run] = {
        str(threads): partial(encoder, images, _QUALITY) for threads, encoder in encoders.items()
    }
    times, failed = compared(runs, setup, rounds=3)
    rows: list[harness.Row] = [
        {"threads": int(threads), "images_s": len(images) / ms * 1e3}
        for threads, ms in times.items()
    ]
    yield Table("encode", rows)
    if failed:
        raise WrongError(f"threads, and what failed: {failed}")
    files = encoders[THREADS[0]](images, _QUALITY)
    if any(data is None for data in files):
        raise WrongError(f"{sum(data is None for data in files)} pages were not encoded")
    theirs = [
        cv2.imencode(".jpg", gray, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
        for gray in grays
    ]
    ours = _loss(grays, [data for data in files if data is not None])
    opencv = _loss(grays, theirs)
    yield Table("encoded", [{"mean_level": ours, "opencv_level": opencv}])
    if ours > opencv + 0.5:
        raise WrongError(f"JPEG files are {ours:.2f} levels off, those of OpenCV {opencv:.2f}")


def _loss(grays: Sequence[Gray], files: Sequence[bytes]) -> float:
    """The mean difference between pages and their files, in levels."""
    apart = [
        np.abs(gray.astype(np.int16) - _opencv(data)).mean()
        for gray, data in zip(grays, files, strict=True)
    ]
    return float(np.mean(apart))
