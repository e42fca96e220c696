"""Image files to luma on a GPU and back, a batch at a time.

DALI decodes JPEG on the GPU. All else is read by cpu.py, on threads of the processor, while the GPU
works, and so is what DALI cannot decode: that names what is wrong with a file in the same words.

DALI reads PNG and WebP on the processor too, with the same libraries, but not with the same result:
it drops alpha, refuses WebP with EXIF, and its luma of a colour PNG is off by 1. Nor is it much
faster. Milliseconds a page of 992 x 1401, two threads of an AMD EPYC:

                      cpu.py   DALI
    PNG, gray            6.0    5.1
    PNG, colour         15.3   10.2
    WebP, lossy          6.0    5.2
    WebP, lossless       8.4    8.1
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from sketchify_rt import packages, tensors
from sketchify_rt.codec import cpu
from sketchify_rt.codec.dali import JpegDecoder
from sketchify_rt.codec.header import File
from sketchify_rt.codec.nvimagecodec import JpegEncoder
from sketchify_rt.errors import DecodeError, EncodeError, bare
from sketchify_rt.image import Gray
from sketchify_rt.options import Encoding

T = TypeVar("T")

_DALI, _NVIMAGECODEC = "nvidia.dali", "nvidia.nvimgcodec"
_PACKAGES = {_DALI: "nvidia-dali-cuda130", _NVIMAGECODEC: "nvidia-nvimgcodec-cu13"}


def missing() -> list[str]:
    """Packages that are not installed, without which the processor does what they would do."""
    return [package for module, package in _PACKAGES.items() if not packages.installed(module)]


class Codec:
    """The codec of one device. Thread-safe.

    Its threads serve all callers. DALI and nvImageCodec are imported when first needed, and do
    without the GPU's memory until then.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        """threads: of the processor, for each of DALI, nvImageCodec and the rest."""
        self._device = device
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="codec")
        self._has_dali = packages.installed(_DALI)
        self._has_nvimagecodec = device.type == "cuda" and packages.installed(_NVIMAGECODEC)
        self._opened: dict[type, Any] = {}
        self._lock = threading.Lock()

    def decode(self, files: Sequence[File], max_pixels: int) -> list[Tensor | DecodeError]:
        """Luma of image files in order, upright, as `cpu.decode` defines it, errors included.

        A GPU rounds the luma of JPEG files differently; see `JpegDecoder`.

        Gives uint8 (H, W) on the device, some of them views of
        one buffer, or a DecodeError in the place of a file that cannot be read. Raises
        BackendUnavailable where DALI is installed and does not work, and MemoryError or
        torch.OutOfMemoryError where there is too little on the device.
        """
        host: dict[int, Future[Gray]] = {}

        def read(file: File) -> Gray:
            return cpu.decode(file.data, file.name, max_pixels, file.header)

        def read_on_host(index: int) -> None:
            host[index] = self._pool.submit(read, files[index])

        on_device = [index for index, file in enumerate(files) if self._takes(file, max_pixels)]
        for index in range(len(files)):
            if index not in on_device:
                read_on_host(index)
        results: dict[int, Tensor | DecodeError] = {}
        if on_device:
            planes = self._open(JpegDecoder)(
                [files[index].data for index in on_device],
                [files[index].header.orientation for index in on_device],
            )
            for index, plane in zip(on_device, planes, strict=True):
                if plane is None:
                    read_on_host(index)
                else:
                    results[index] = plane
        luma: dict[int, Gray] = {}
        for index, future in host.items():
            try:
                luma[index] = future.result()
            except DecodeError as error:
                results[index] = bare(error)
        uploaded = tensors.upload(list(luma.values()), self._device)
        results.update(zip(luma, uploaded, strict=True))
        return [results[index] for index in range(len(files))]

    def _takes(self, file: File, max_pixels: int) -> bool:
        """Whether DALI is to read it; else the host does, or says what is wrong with it."""
        return self._has_dali and file.header.plain and 0 < file.header.pixels <= max_pixels

    def encode(self, images: Sequence[Tensor], encoding: Encoding) -> list[bytes | EncodeError]:
        """Files of images in order, as `cpu.encode` writes them, or an EncodeError in the place.

        images: uint8 (H, W) on the device. A JPEG that nvImageCodec writes has other bytes, but
        the same quality. Waits for the current stream.
        """
        results: dict[int, bytes | EncodeError] = {}
        if encoding.format == "jpg" and self._has_nvimagecodec:
            limit = cpu.SIDE_LIMITS["jpg"]
            fit = [index for index, image in enumerate(images) if max(image.shape) <= limit]
            files = self._open(JpegEncoder)(
                [images[index] for index in fit], encoding.quality or cpu.JPEG_QUALITY
            )
            results = {index: data for index, data in zip(fit, files, strict=True) if data}
        rest = [index for index in range(len(images)) if index not in results]
        grays = tensors.download([images[index] for index in rest])
        futures = [self._pool.submit(cpu.encode, gray, encoding) for gray in grays]
        for index, future in zip(rest, futures, strict=True):
            try:
                results[index] = future.result()
            except EncodeError as error:
                results[index] = bare(error)
        return [results[index] for index in range(len(images))]

    def _open(self, kind: type[T]) -> T:
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = kind(self._device, self._threads)  # type: ignore[call-arg]
            opened: T = self._opened[kind]
            return opened
