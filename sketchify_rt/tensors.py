"""Images as torch tensors, uint8 (H, W): upload, download, luma, size, hint.

All work is queued on torch's current stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sketchify_rt import bilevel, looks
from sketchify_rt.errors import InputError
from sketchify_rt.image import CELL, Gray, bands
from sketchify_rt.options import Look

# Bytes. The kernels are two to three times as fast if images and their rows begin at multiples.
ROW = 16

_INDEXED = 2**24  # pixels that a table is applied to at a time: their indices have four bytes each

# The Gaussian of `hint`: `kernels.reference.gauss_cells` with sigma 4.
_TAPS = (1, 1, 3, 4, 7, 10, 15, 19, 24, 28, 31, 32, 31, 28, 24, 19, 15, 10, 7, 4, 3, 1, 1)


def empty(shapes: Sequence[tuple[int, ...]], device: torch.device) -> list[Tensor]:
    """Allocate images as views of one buffer, without values.

    Args:
        shapes: (H, W) of each.
        device: The device.

    Returns:
        uint8 (H, W) each, `aligned`. The bytes between the end of a row and the next one belong to
        no image.
    """
    return _views(shapes, torch.empty(_size(shapes), dtype=torch.uint8, device=device))


def upload(grays: Sequence[Gray], device: torch.device) -> list[Tensor]:
    """Copy arrays to the device, all at once.

    Args:
        grays: uint8 (H, W) each, any strides.
        device: The device.

    Returns:
        uint8 (H, W) each, as `empty` makes them.
    """
    shapes = [gray.shape for gray in grays]
    # From memory that is not pinned the host would wait for the copy.
    staging = torch.empty(_size(shapes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, gray in zip(_views(shapes, staging), grays, strict=True):
        part.numpy()[...] = gray
    return _views(shapes, staging.to(device, non_blocking=True))


def constant(
    values: Sequence[Any] | NDArray[Any], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Copy a few numbers to the device, without waiting for it.

    Args:
        values: Numbers, or rows of numbers.
        dtype: Of the result.
        device: The device.
    """
    on_host = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def aligned(image: Tensor) -> Tensor:
    """Return the image if its rows begin at multiples of ROW bytes, else a copy like that."""
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
    """Copy tensors to the host, all at once, and wait for the copy.

    Args:
        images: uint8 (H, W) each, on one device.

    Returns:
        uint8 (H, W) each, views of one buffer. It is pinned memory if the tensors are on a GPU, so
        do not keep it for long.
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
    """Compute luma, equal to `image.to_luma`.

    Args:
        pixels: uint8 (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.

    Returns:
        uint8 (H, W), `aligned`. It shares memory with gray `pixels` that are aligned already.

    Raises:
        InputError: The type or the shape is another one, or there are no pixels.
    """
    shape = tuple(pixels.shape)
    channels = shape[2] if len(shape) == 3 else 1 if len(shape) == 2 else 0
    if pixels.dtype != torch.uint8 or channels not in (1, 3, 4) or not pixels.numel():
        raise InputError(
            f"not an image: got a tensor of {pixels.dtype} and shape {shape}, expected uint8 of "
            "shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, with at least one pixel"
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
    """Resize an image with antialiasing; equals `kernels.reference.resize` within 1 level.

    Args:
        image: uint8 (H, W).
        height: Rows of the result, at least 1.
        width: Columns of the result, at least 1.

    Returns:
        uint8 (height, width), `aligned`.
    """
    if width != image.shape[1]:
        image = _resize_rows(image.T, width).T
    if height != image.shape[0]:
        image = _resize_rows(image, height)
    return aligned(image)


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """Enlarge a sketch by a bicubic filter; equals `image.enlarge` within 1 level.

    Within 2 levels for sides above 30,000 pixels, since torch has coordinates in float32.

    Args:
        image: uint8 (H, W).
        height: Rows of the result, at least H.
        width: Columns of the result, at least W.

    Returns:
        uint8 (height, width), `aligned`.
    """
    values = image.to(torch.float32)[None, None]
    large = F.interpolate(values, (height, width), mode="bicubic", align_corners=False)
    return aligned(large[0, 0].round_().clamp_(0, 255).to(torch.uint8))


def _resize_rows(image: Tensor, target: int) -> Tensor:
    """Return the image with `target` rows: sums of source rows with weights, tap by tap."""
    source, device = len(image), image.device
    scale = source / target
    radius = max(scale, 1.0)
    centres = (torch.arange(target, dtype=torch.float64, device=device) + 0.5) * scale - 0.5
    taps = torch.arange(math.floor(2 * radius) + 1, device=device)
    near = (centres - radius).ceil() + taps[:, None]
    weights = (1 - (near - centres).abs() / radius).clamp(min=0)
    weights = (weights / weights.sum(0)).to(torch.float32)
    rows = near.clamp(0, source - 1).long()  # the edge is repeated
    sums = torch.full((target, image.shape[1]), 0.5, dtype=torch.float32, device=device)
    for weight, row in zip(weights, rows, strict=True):
        sums += weight[:, None] * image[row]
    return sums.to(torch.uint8)


def hint(binary: Tensor, tones: Tensor) -> Tensor:
    """Measure how dark the strokes are in each cell; equals `kernels.reference.hint`.

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
    # torch converts all pixels to the type of the sums. 16 bits hold 8 x 8 x 255.
    cells = planes.view(2, -(-height // CELL), CELL, -1, CELL).sum((2, 4), dtype=torch.int16)
    # float64 holds all integers from here on. Sums are below 2^31. They are rounded, since a
    # convolution may use an algorithm that is not exact.
    cells = cells.to(torch.float64)
    strokes, darkness = cells.sum((1, 2))
    mean = ((512 * darkness + strokes) / (2 * strokes)).floor()
    taps = constant(_TAPS, torch.float64, binary.device)
    across = F.conv2d(cells[:, None], taps.view(1, 1, 1, -1), padding="same")
    count, dark = F.conv2d(across, taps.view(1, 1, -1, 1), padding="same").round_()[:, 0]
    prior = 16 * sum(_TAPS) ** 2 // 25
    numerator = 254 * (256 * dark + prior * mean)
    denominator = 255 * 256 * (count + prior)
    # Below 2^53 a quotient of integers is not rounded up to the next integer.
    levels = 1 + ((2 * numerator + denominator) / (2 * denominator)).floor_()
    return torch.where(strokes > 0, levels, 0).to(torch.uint8)


def look(sketch: Tensor, gray: Tensor, look: Look) -> Tensor:
    """Give a sketch a look, in place; equals `kernels.reference.look`.

    The host waits for the device, for the histograms.

    Args:
        sketch: uint8 (H, W). Overwritten.
        gray: uint8 (H, W), the luma that it was drawn from, on the same device.
        look: The look.

    Returns:
        `sketch`.
    """
    step = looks.STEP
    black, shades, levels = looks.tables(
        look, lambda: histogram(sketch[::step]), lambda: histogram(gray[::step])
    )
    over = (np.arange(256) - black).clip(0, len(shades) - 1)
    shade = constant(shades[over], torch.uint8, sketch.device)
    table = constant(levels, torch.uint8, sketch.device)
    for band in bands(tuple(sketch.shape), _INDEXED):
        drawn = sketch[band]
        darker = torch.minimum(drawn, shade[gray[band].int()])
        drawn.copy_(table[darker.int()])
    return sketch


def bilevel_level(gray: Tensor) -> int | None:
    """Find the level that divides a black and white page; equals `bilevel.level`.

    The host waits for the device.

    Args:
        gray: uint8 (H, W).

    Returns:
        See `bilevel.level`.
    """
    found = bilevel.two_tones(histogram(gray))
    if found is None:
        return None
    dark, light = found
    levels = gray[None, None].half()  # a type with pooling on every device
    highest = F.max_pool2d(levels, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-levels, 3, stride=1, padding=1)
    between = (levels > dark + bilevel.NEAR) & (levels < light - bilevel.NEAR)
    areas = int((between & (highest - lowest < bilevel.FLAT)).sum())
    return None if areas > bilevel.MOST_GRAY * gray.numel() else (dark + light + 1) // 2


def histogram(gray: Tensor) -> NDArray[np.int64]:
    """Count the pixels of each level, int64 (256,) on the host. The host waits for the device."""
    return torch.bincount(gray.flatten(), minlength=256).cpu().numpy()
