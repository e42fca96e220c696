"""Batches of images of any sizes for the CUDA kernels: one launch works on all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sketchify_rt import tensors


def prepare(
    images: Sequence[Tensor], out: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a kernel reads and what it writes.

    Args:
        images: (H, W) each.
        out: uint8 (H, W) each, the pixels of a row adjacent; None for new ones.

    Returns:
        The images, copied where the pixels of a row are not adjacent, and the results: `out`, or
        views of one buffer.
    """
    sources = [image if image.stride(1) == 1 else image.contiguous() for image in images]
    if out is None:
        out = tensors.empty([tuple(image.shape) for image in images], images[0].device)
    return sources, list(out)


# Triton's interpreter and numba's simulator patch modules, so threads must take turns. On a GPU,
# one of the threads that start together compiles a kernel, and the others find it compiled.
_one_launch = threading.Lock()


@contextmanager
def launching(device: torch.device) -> Iterator[None]:
    """Make `device` the current one for a launch, and let threads take turns.

    Args:
        device: Where the kernel runs. On the CPU NumPy does not warn of infinities.
    """
    with _one_launch:
        if device.type == "cpu":
            with np.errstate(all="ignore"):
                yield
        else:
            with torch.cuda.device(device):
                yield
