"""Batches of images of any sizes for the CUDA kernels: one launch reads all from one table."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sketchify_rt import tensors
from sketchify_rt.errors import InputError, OptionsError

# Columns of a table; addresses in bytes, row strides in elements.
SOURCE, PAGE, HEIGHT, WIDTH, SOURCE_STRIDE, PAGE_STRIDE = range(6)
COLUMNS = 6


def sources(images: Sequence[Tensor], *dtypes: torch.dtype) -> list[Tensor]:
    """The images, checked; copied where the pixels of a row are not adjacent.

    Raises InputError unless all are (H, W), not empty, of one of `dtypes`, and on one device.
    """
    for image in images:
        if not isinstance(image, Tensor) or image.dtype not in dtypes or image.ndim != 2:
            is_tensor = isinstance(image, Tensor)
            got = f"{image.dtype} {tuple(image.shape)}" if is_tensor else type(image).__name__
            wanted = " or ".join(str(dtype) for dtype in dtypes)
            raise InputError(f"an image must be a {wanted} tensor of shape (H, W), not {got}")
        if not image.numel():
            raise InputError(f"an image is empty: its shape is {tuple(image.shape)}")
        if image.device != images[0].device or image.dtype != images[0].dtype:
            raise InputError("the images of a batch must be of one type and on one device")
    return [image if _rows_adjacent(image) else image.contiguous() for image in images]


def pages(images: Sequence[Tensor], out: Sequence[Tensor] | None) -> list[Tensor]:
    """Where the results go: `out`, checked, or views of one buffer that holds them all.

    Raises InputError unless `out` is uint8 like the images, the pixels of a row adjacent.
    """
    if out is None:
        return tensors.empty([tuple(image.shape) for image in images], images[0].device)
    if len(out) != len(images):
        raise InputError(f"out has {len(out)} tensors for {len(images)} images")
    for page, image in zip(out, images, strict=True):
        fits = page.dtype == torch.uint8 and page.shape == image.shape
        if not fits or page.device != image.device or not _rows_adjacent(page):
            raise InputError(
                f"out must be a uint8 tensor of shape {tuple(image.shape)} on {image.device}, "
                "like its image, the pixels of a row adjacent"
            )
    return list(out)


def table(images: Sequence[Tensor], results: Sequence[Tensor]) -> Tensor:
    """int64 (N, COLUMNS) on the device of the images."""
    rows = [
        (i.data_ptr(), p.data_ptr(), i.shape[0], i.shape[1], i.stride(0), p.stride(0))
        for i, p in zip(images, results, strict=True)
    ]
    return upload(rows, images[0].device)


def upload(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """An int64 tensor of `rows`, copied on the current stream without waiting for it."""
    on_host = torch.tensor(rows, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def steps(strength: float) -> int:
    """Line strength, 0..4, in steps of 1/256. Raises OptionsError beyond."""
    if not 0 <= strength <= 4:
        raise OptionsError(f"strength is {strength}; it may be 0 to 4")
    return round(strength * 256)


# Interpreter and simulator patch their modules; and on a GPU, of threads that start together one
# compiles a kernel and the others find it done. A launch is Python's work, one thread's at a time.
_one_launch = threading.Lock()


@contextmanager
def launching(device: torch.device) -> Iterator[None]:
    """One launch at a time, on the device that it makes the current one.

    On the processor infinities come without a warning, as on a GPU.
    """
    with _one_launch:
        if device.type == "cpu":
            with np.errstate(all="ignore"):
                yield
        else:
            with torch.cuda.device(device):
                yield


def _rows_adjacent(image: Tensor) -> bool:
    return image.stride(1) == 1 or image.shape[1] == 1
