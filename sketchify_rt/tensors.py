"""Images as torch tensors, uint8 (H, W): from and to the host, luma, and size.

All is queued on torch's current stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sketchify_rt import bilevel
from sketchify_rt.errors import InputError
from sketchify_rt.image import CELL, Gray

# Bytes. The kernels are two to three times as fast where images and their rows begin at multiples.
ROW = 16

# Of one product of `resize`, at most; of the size of its temporaries, 32 MiB each.
_WEIGHTS = 2**22

# Of `hint`: a Gaussian of sigma 4 cells.
_TAPS = (1, 1, 3, 4, 7, 10, 15, 19, 24, 28, 31, 32, 31, 28, 24, 19, 15, 10, 7, 4, 3, 1, 1)


def empty(shapes: Sequence[tuple[int, ...]], device: torch.device) -> list[Tensor]:
    """Images of (H, W) each, not yet written, views of one buffer.

    Rows begin at multiples of ROW bytes: what lies between the end of one and the next is in no
    image.
    """
    return _views(shapes, torch.empty(_size(shapes), dtype=torch.uint8, device=device))


def upload(grays: Sequence[Gray], device: torch.device) -> list[Tensor]:
    """Arrays, uint8 (H, W), as `empty` images on the device, in one copy."""
    shapes = [gray.shape for gray in grays]
    # A copy from memory that is not pinned would make the host wait for it.
    staging = torch.empty(_size(shapes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, gray in zip(_views(shapes, staging), grays, strict=True):
        part.numpy()[...] = gray
    return _views(shapes, staging.to(device, non_blocking=True))


def aligned(image: Tensor) -> Tensor:
    """The image where its rows are as those of `empty`, else a copy of it."""
    if image.stride(1) == 1 and image.stride(0) % ROW == 0 and image.data_ptr() % ROW == 0:
        return image
    (copy,) = empty([tuple(image.shape)], image.device)
    return copy.copy_(image)


def _stride(width: int) -> int:
    return -(-width // ROW) * ROW


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(height * _stride(width) for height, width in shapes)


def _views(shapes: Sequence[tuple[int, ...]], buffer: Tensor) -> list[Tensor]:
    parts = torch.split(buffer, [height * _stride(width) for height, width in shapes])
    return [
        part.view(height, _stride(width))[:, :width]
        for part, (height, width) in zip(parts, shapes, strict=True)
    ]


def download(images: Sequence[Tensor]) -> list[Gray]:
    """Tensors, uint8 (H, W), as arrays; waits for what is queued before.

    They are views of one buffer, pinned where the tensors are on a GPU: not to be kept for long.
    """
    sizes = [image.numel() for image in images]
    device = images[0].device if images else torch.device("cpu")
    staging = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    flat = torch.split(staging, sizes)
    parts = [part.view(image.shape) for part, image in zip(flat, images, strict=True)]
    for part, image in zip(parts, images, strict=True):
        part.copy_(image, non_blocking=True)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return [part.numpy() for part in parts]


def to_luma(pixels: Tensor) -> Tensor:
    """Luma of pixels on the device, of the types and shapes that `image.to_luma` takes, and equal.

    Shares memory with gray `pixels` whose rows are `aligned`. Raises InputError for another type or
    shape, or no pixels.
    """
    shape = tuple(pixels.shape)
    channels = shape[2] if len(shape) == 3 else 1 if len(shape) == 2 else 0
    if pixels.dtype != torch.uint8 or channels not in (1, 3, 4) or not pixels.numel():
        raise InputError(
            f"image is {pixels.dtype} of shape {shape}; it must be uint8, (H, W), (H, W, 1), "
            "(H, W, 3) RGB or (H, W, 4) RGBA, with at least one pixel"
        )
    if channels == 1:
        return aligned(pixels.reshape(shape[:2]))
    rgb = pixels[..., :3].to(torch.int32)
    if channels == 4:
        alpha = pixels[..., 3:].to(torch.int32)
        over = rgb * alpha + (255 * (255 - alpha) + 128)
        rgb = (over + (over >> 8)) >> 8  # exact x / 255, as image.to_luma has it
    red, green, blue = rgb.unbind(-1)
    # OpenCV's COLOR_RGB2GRAY: BT.601 weights in 15 bits, rounded.
    return aligned(((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15).to(torch.uint8))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """An image at another size, antialiased; equals `kernels.reference.resize` within 1 level.

    Two products with matrices of weights, of columns and then of rows, both rounded as on a CPU.

    Args:
        image: uint8 (H, W).
        height: Rows of the result, at least 1.
        width: Its columns, at least 1.

    Returns:
        uint8 (height, width), `aligned`; of that size already, see there.
    """
    pixels = image
    if width != image.shape[1]:
        pixels = _resize_rows(pixels.T, width).T
    if height != image.shape[0]:
        pixels = _resize_rows(pixels, height)
    return aligned(pixels)


def _resize_rows(image: Tensor, target: int) -> Tensor:
    """The image with `target` rows."""
    pixels = image.to(torch.float32)
    blocks = _weights(len(image), target, image.device)
    resized = torch.cat([weights @ pixels[seen] for seen, weights in blocks])
    return resized.add_(0.5).to(torch.uint8)


def hint(binary: Tensor, tones: Tensor) -> Tensor:
    """How dark strokes are around each cell of 8 x 8 pixels; equals `kernels.reference.hint`.

    The host does not wait for the device.

    Args:
        binary: uint8 (H, W), 0 where a stroke is.
        tones: uint8 (H, W), the same image after `dodge`, on the same device.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)).
    """
    black = binary == 0
    planes = torch.stack([black, black * (255 - tones)])
    height, width = binary.shape
    planes = F.pad(planes, (0, -width % CELL, 0, -height % CELL))
    # torch converts all pixels to the type of the sums: 16 bits, which hold 8 x 8 x 255.
    cells = planes.view(2, -(-height // CELL), CELL, -1, CELL).sum((2, 4), dtype=torch.int16)
    # float64 holds all whole numbers from here on. Sums are below 2^31; they are rounded, since a
    # convolution may be computed in a way that is not exact.
    cells = cells.to(torch.float64)
    strokes, darkness = cells.sum((1, 2))
    mean = ((512 * darkness + strokes) / (2 * strokes)).floor()
    on_gpu = binary.device.type == "cuda"
    taps = torch.tensor(_TAPS, dtype=torch.float64, pin_memory=on_gpu)
    taps = taps.to(binary.device, non_blocking=True)
    across = F.conv2d(cells[:, None], taps.view(1, 1, 1, -1), padding="same")
    count, dark = F.conv2d(across, taps.view(1, 1, -1, 1), padding="same").round_()[:, 0]
    prior = 16 * sum(_TAPS) ** 2 // 25
    numerator = 254 * (256 * dark + prior * mean)
    denominator = 255 * 256 * (count + prior)
    # Below 2^53 a quotient of whole numbers is not rounded up to a whole number.
    levels = 1 + ((2 * numerator + denominator) / (2 * denominator)).floor_()
    return torch.where(strokes > 0, levels, 0).to(torch.uint8)


def bilevel_level(gray: Tensor) -> int | None:
    """The level that divides a black and white page; equals `bilevel.level`.

    Waits for the device.

    Args:
        gray: uint8 (H, W).
    """
    found = bilevel.two_tones(histogram(gray))
    if found is None:
        return None
    dark, light = found
    levels = gray[None, None].half()  # of which there are windows on every device
    highest = F.max_pool2d(levels, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-levels, 3, stride=1, padding=1)
    between = (levels > dark + bilevel.NEAR) & (levels < light - bilevel.NEAR)
    areas = int((between & (highest - lowest < bilevel.FLAT)).sum())
    return None if areas > bilevel.MOST_GRAY * gray.numel() else (dark + light + 1) // 2


def histogram(gray: Tensor) -> NDArray[np.int64]:
    """The number of pixels of each level, int64 (256,) on the host. Waits for the device."""
    return torch.bincount(gray.flatten(), minlength=256).cpu().numpy()


def _weights(source: int, target: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """For some target rows after the others: which source rows they see, and their weights.

    All at once for a page; for the long strips of some comics that would be gigabytes of zeros.

    Yields:
        Source rows; their weights, float32 (target rows, source rows).
    """
    scale = source / target
    radius = max(scale, 1.0)
    size = max(1, math.isqrt(_WEIGHTS * target // source))
    for first in range(0, target, size):
        last = min(first + size, target)
        start = math.floor((first + 0.5) * scale - 0.5 - radius)
        stop = math.ceil((last - 0.5) * scale - 0.5 + radius) + 1
        targets = torch.arange(first, last, device=device, dtype=torch.float64)[:, None]
        sources = torch.arange(start, stop, device=device, dtype=torch.float64)
        distances = ((targets + 0.5) * scale - 0.5 - sources).abs_()
        weights = (1 - distances / radius).clamp_(min=0)
        weights /= weights.sum(1, keepdim=True)
        # The edge is repeated: what lies beyond it counts as the first or the last row.
        above, below = max(-start, 0), max(stop - source, 0)
        within = weights[:, above : stop - start - below]
        within[:, 0] += weights[:, :above].sum(1)
        within[:, -1] += weights[:, stop - start - below :].sum(1)
        yield slice(start + above, stop - below), within.to(torch.float32)
