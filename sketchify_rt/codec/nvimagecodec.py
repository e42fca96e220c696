"""Luma to JPEG files with nvImageCodec, on a GPU. A test runs it on the processor."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sketchify_rt import tensors
from sketchify_rt.errors import BackendUnavailable


class JpegEncoder:
    """nvImageCodec's encoder, opened on one device.

    Thread-safe; calls run one at a time, since an encoder has state. It spreads a batch over
    threads, each with a stream of its own.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        """Opens the encoder.

        Args:
            device: A GPU, or the processor.
            threads: Threads of the processor, the caller's included.

        Raises:
            BackendUnavailable: nvImageCodec is not installed, or does not work on the device.
        """
        self._device = device
        self._lock = threading.Lock()
        try:
            library: Any = importlib.import_module("nvidia.nvimgcodec")
            kinds, number, backends = library.BackendKind, library.NVIMGCODEC_DEVICE_CPU_ONLY, None
            if device.type == "cuda":
                number = torch.cuda.current_device() if device.index is None else device.index
                # Not its own way over the processor: cpu.py is as good, and known to be at work.
                backends = [
                    library.Backend(kind)
                    for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
                ]
            self._library = library
            self._encoder = library.Encoder(
                device_id=number,
                max_num_cpu_threads=max(1, threads - 1),  # the caller is one more
                backends=backends,
            )
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendUnavailable(f"{device}: nvImageCodec cannot be opened: {error}") from error

    def __call__(self, images: Sequence[Tensor], quality: int) -> list[bytes | None]:
        """Encodes a batch, and waits for the current stream.

        Args:
            images: uint8 (H, W) on the device.
            quality: 1 to 100.

        Returns:
            A JPEG file for each image; None for an image that cannot be encoded.
        """
        library = self._library
        params = library.EncodeParams(
            quality_type=library.QualityType.QUALITY,
            quality_value=quality,
            chroma_subsampling=library.ChromaSubsampling.CSS_GRAY,
        )
        # nvJPEG takes a lone luma plane only with rows that are multiples of 8 bytes apart.
        sources = [tensors.aligned(image) for image in images]
        with self._lock:
            if self._device.type == "cpu":
                wrapped = library.as_images([source.numpy() for source in sources])
            else:
                # The encoder's own streams wait for this one, and this one for them.
                stream = torch.cuda.current_stream(self._device).cuda_stream
                wrapped = library.as_images(sources, stream)
            files = self._encoder.encode(wrapped, "jpeg", params=params)
        return [None if file is None else bytes(file) for file in files]
