"""JPEG files to luma with DALI, on a GPU. The tests run it on the processor."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sketchify_rt import tensors
from sketchify_rt.codec import cpu
from sketchify_rt.errors import BackendUnavailable
from sketchify_rt.options import Encoding

# A file without a fault: where DALI cannot decode it, DALI does not work.
_TINY = cpu.encode(np.zeros((16, 16), np.uint8), Encoding("jpg"))

# EXIF orientation to the axes that are flipped; from 5 on height and width are then swapped.
_FLIPS = {2: (1,), 3: (0, 1), 4: (0,), 6: (0,), 7: (0, 1), 8: (1,)}


class JpegDecoder:
    """DALI's image decoder, opened on one device.

    Thread-safe; calls run one at a time. DALI itself spreads a batch over threads. A second decoder
    would double them and their memory, 16 MiB on the device and 16 MiB pinned for each thread.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        """Opens the decoder.

        Args:
            device: A GPU, or the processor.
            threads: Threads of the processor that decode.

        Raises:
            BackendUnavailable: DALI is not installed, or does not work on the device.
        """
        self._device = device
        self._lock = threading.Lock()
        self._batch = 1
        try:
            dali: Any = importlib.import_module("nvidia.dali.experimental.dynamic")
            gray = importlib.import_module("nvidia.dali.types").GRAY
            where = dali.device(device)
            with where:
                self._context = dali.EvalContext(num_threads=threads)
            # Raises errors at once, and gives pixels that are ready for every stream.
            self._mode = dali.EvalMode.sync_full
            self._as_batch = dali.as_batch
            self._image = functools.partial(
                dali.decoders.image,
                device=where,
                output_type=gray,
                adjust_orientation=False,
                # All files that the hardware engine takes go to it. By default it gets 65 % of a
                # batch and CUDA cores the rest, whose rounding is up to 3 levels apart, so pixels
                # would depend on the other files of the batch. Ignored on cards without an engine.
                hw_decoder_load=1.0,
                # Threads are not bound to cores: two decoders, or two processes, would share a few
                # cores and leave the others idle.
                affine=False,
            )
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendUnavailable(f"{device}: DALI cannot be opened: {error}") from error
        self._check()

    def __call__(self, files: Sequence[bytes], orientations: Sequence[int]) -> list[Tensor | None]:
        """Decodes a batch, and waits for the current stream.

        On the processor luma equals that of `cpu.decode`. A GPU rounds differently: it should be at
        most 3 levels off, and at most 1 on 98 % of the pixels.

        Args:
            files: JPEG files whose header is `plain`.
            orientations: Of EXIF, 1 to 8, one for each file.

        Returns:
            For each file uint8 (H, W), upright, views of one buffer on the device; None for a file
            that DALI cannot decode.

        Raises:
            BackendUnavailable: DALI no longer works.
            MemoryError: there is too little memory; or torch.OutOfMemoryError.
        """
        with self._lock:
            planes = self._decode(files)
            if all(plane is None for plane in planes):
                self._check()
            upright = {
                index: _orient(plane, orientations[index])
                for index, plane in enumerate(planes)
                if plane is not None
            }
            shapes = [tuple(plane.shape) for plane in upright.values()]
            results: list[Tensor | None] = [None] * len(files)
            copies = tensors.empty(shapes, self._device)
            for copy, (index, plane) in zip(copies, upright.items(), strict=True):
                results[index] = copy.copy_(plane)
            # The planes are DALI's memory, which it reuses in the order of its own stream: they
            # must outlive the copies, which are queued on ours. The wait costs next to nothing,
            # since decoding is the first that is done for a batch.
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
            return results

    def _check(self) -> None:
        try:
            self._run([_TINY])
        except RuntimeError as error:
            raise BackendUnavailable(f"{self._device}: DALI decodes no JPEG: {error}") from error

    def _decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """One damaged file fails its batch, so halves are tried, down to the one at fault."""
        try:
            return [*self._run(files)]
        except RuntimeError:
            if len(files) == 1:
                return [None]
        half = len(files) // 2
        return self._decode(files[:half]) + self._decode(files[half:])

    def _run(self, files: Sequence[bytes]) -> list[Tensor]:
        """Planes (H, W) as they are stored, in DALI's memory.

        Raises RuntimeError or MemoryError, once nothing is being written for the batch any more.
        """
        # DALI makes and keeps a decoder, with threads and buffers of its own, for each power of two
        # of files. Filled up to the most so far, with next to no pixels, batches share one.
        self._batch = max(self._batch, len(files))
        filled = [*files, *[_TINY] * (self._batch - len(files))]
        try:
            with self._context, self._mode:
                batch = self._as_batch([np.frombuffer(data, np.uint8) for data in filled])
                planes = self._image(batch)
                return [planes.tensors[index].torch()[..., 0] for index in range(len(files))]
        except (RuntimeError, MemoryError):
            self._wait()
            raise

    def _wait(self) -> None:
        """Waits for what DALI has queued on the device.

        In its mode sync_full DALI waits itself, but not where a batch fails: CUDA cores may still
        be decoding the good files, into memory that DALI has taken back by then. DALI gives that
        memory out again in the order of its stream. nvJPEG's hardware engine ignores this order and
        writes at once (pytorch/vision 9606, meta-pytorch/torchcodec 1634: 134 of 200 calls
        corrupted memory on an H100), so the late writes would land in the pixels of the retry.

        The stream is enough: nvImageCodec's own streams are joined to it for each file that they
        decode. To wait for the whole device would break a CUDA graph that another thread captures.
        """
        stream = self._context.cuda_stream
        if stream is not None:  # None where there is no GPU
            stream.synchronize()


def _orient(plane: Tensor, orientation: int) -> Tensor:
    """As `image.orient`, but for the order in memory."""
    turned = plane.flip(_FLIPS[orientation]) if orientation in _FLIPS else plane
    return turned.T if orientation >= 5 else turned
