"""Images as torch tensors, uint8 (H, W): from and to the host, luma, and size.

All is queued on torch's current stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sketchify_rt.errors import InputError
from sketchify_rt.image import Gray


def upload(grays: Sequence[Gray], device: torch.device) -> list[Tensor]:
    """Arrays, uint8 (H, W), as views of one buffer on the device, in one copy."""
    sizes = [gray.size for gray in grays]
    # A copy from pageable memory would make the host wait for it.
    staging = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, gray in zip(torch.split(staging, sizes), grays, strict=True):
        part.numpy().reshape(gray.shape)[...] = gray
    parts = torch.split(staging.to(device, non_blocking=True), sizes)
    return [part.view(gray.shape) for part, gray in zip(parts, grays, strict=True)]


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

    Raises InputError for another type, shape, or no pixels.
    """
    shape = tuple(pixels.shape)
    channels = shape[2] if len(shape) == 3 else 1 if len(shape) == 2 else 0
    if pixels.dtype != torch.uint8 or channels not in (1, 3, 4) or not pixels.numel():
        raise InputError(
            f"image is {pixels.dtype} of shape {shape}; it must be uint8, (H, W), (H, W, 1), "
            "(H, W, 3) RGB or (H, W, 4) RGBA, with at least one pixel"
        )
    if channels == 1:
        return pixels.reshape(shape[:2]).contiguous()
    rgb = pixels[..., :3].to(torch.int32)
    if channels == 4:
        alpha = pixels[..., 3:].to(torch.int32)
        over = rgb * alpha + (255 * (255 - alpha) + 128)
        rgb = (over + (over >> 8)) >> 8  # exact x / 255, as image.to_luma has it
    red, green, blue = rgb.unbind(-1)
    # OpenCV's COLOR_RGB2GRAY: BT.601 weights in 15 bits, rounded.
    return ((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15).to(torch.uint8)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Averages areas when shrinking, interpolates linearly when enlarging, within 1 of OpenCV.

    Two products with matrices of weights: each side's pixels from the other's. Of a page reduced to
    a half and a quarter, at most 3 pixels in a million are then binarized otherwise than on a CPU;
    with DALI's resize, which cannot average areas, it would be 2,000 to 12,000.
    """
    rows, columns = image.shape
    if (rows, columns) == (height, width):
        return image.contiguous()
    weights = _area if height <= rows and width <= columns else _linear
    down = weights(rows, height, image.device)
    across = weights(columns, width, image.device)
    resized = down @ image.to(torch.float32) @ across.T
    return resized.add_(0.5).clamp_(0, 255).to(torch.uint8)


def _area(source: int, target: int, device: torch.device) -> Tensor:
    """Float32 (target, source): the share of each source pixel in each target pixel."""
    edges = torch.arange(target + 1, device=device, dtype=torch.float64)[:, None] * source / target
    start = torch.arange(source, device=device, dtype=torch.float64)
    overlap = torch.minimum(edges[1:], start + 1) - torch.maximum(edges[:-1], start)
    return overlap.clamp_(min=0).mul_(target / source).to(torch.float32)


def _linear(source: int, target: int, device: torch.device) -> Tensor:
    """Float32 (target, source): hat functions around the centres, the edge repeated."""
    place = (torch.arange(target, device=device, dtype=torch.float64) + 0.5) * source / target - 0.5
    place = place.clamp_(0, source - 1)[:, None]
    start = torch.arange(source, device=device, dtype=torch.float64)
    return (1 - (place - start).abs()).clamp_(min=0).to(torch.float32)
