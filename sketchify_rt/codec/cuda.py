"""Image files to luma on a GPU and back, a batch at a time.

DALI decodes JPEG on the GPU. All other files are decoded by cpu.py, on threads of the processor,
while the GPU works. So are files that DALI cannot decode: errors are the same as without a GPU.

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
from concurrent.futures import ThreadPoolExecutor
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
    """Packages that are not installed; the processor does their work."""
    return [package for module, package in _PACKAGES.items() if not packages.installed(module)]


class Codec:
    """The codec of one device. Thread-safe.

    Its threads serve all callers. DALI and nvImageCodec are opened when first needed, and take no
    memory of the GPU before.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        """Opens nothing yet.

        Args:
            device: Where images are.
            threads: Threads of the processor, for each of DALI, nvImageCodec and cpu.py.
        """
        self._device = device
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="codec")
        self._has_dali = packages.installed(_DALI)
        self._has_nvimagecodec = device.type == "cuda" and packages.installed(_NVIMAGECODEC)
        self._opened: dict[type, Any] = {}
        self._lock = threading.Lock()

    def decode(self, files: Sequence[File], max_pixels: int) -> list[Tensor | DecodeError]:
        """Luma of image files, as `cpu.decode` defines it, but that a GPU rounds JPEG differently.

        DALI is given the JPEG files that it can decode, see `Header.plain`.

        Args:
            files: Image files.
            max_pixels: An image of more is refused.

        Returns:
            For each file uint8 (H, W) on the device, upright, some of them views of one buffer; or
            the DecodeError of `cpu.decode`.

        Raises:
            BackendUnavailable: DALI is installed and does not work.
            MemoryError: there is too little memory on the device; or torch.OutOfMemoryError.
        """

        def read(index: int) -> Gray:
            file = files[index]
            return cpu.decode(file, max_pixels)

        headers = [file.header for file in files]
        on_device = [
            index
            for index, header in enumerate(headers)
            if self._has_dali and header.plain and 0 < header.pixels <= max_pixels
        ]
        rest = [index for index in range(len(files)) if index not in on_device]
        host = {index: self._pool.submit(read, index) for index in rest}
        results: dict[int, Tensor | DecodeError] = {}
        if on_device:
            planes = self._open(JpegDecoder)(
                [files[index].data for index in on_device],
                [headers[index].orientation for index in on_device],
            )
            decoded = zip(on_device, planes, strict=True)
            results = {index: plane for index, plane in decoded if plane is not None}
            refused = [index for index in on_device if index not in results]
            host |= {index: self._pool.submit(read, index) for index in refused}
        luma: dict[int, Gray] = {}
        for index, future in host.items():
            try:
                luma[index] = future.result()
            except DecodeError as error:
                results[index] = bare(error)
        uploaded = tensors.upload(list(luma.values()), self._device)
        results.update(zip(luma, uploaded, strict=True))
        return [results[index] for index in range(len(files))]

    def encode(self, images: Sequence[Tensor], encoding: Encoding) -> list[bytes | EncodeError]:
        """Files of images, as `cpu.encode` writes them.

        A JPEG that nvImageCodec writes has other bytes, but the same quality. Waits for the current
        stream.

        Args:
            images: uint8 (H, W) on the device.
            encoding: Of all of them.

        Returns:
            For each image its file, or the EncodeError of `cpu.encode`.
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
