"""What the U-Net is punished for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from training.recipe import LossWeights

SCALES = 3  # of the structural similarity, each half the size of the one before
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def absolute(tones: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return functional.l1_loss(tones, target)


def dark(tones: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, each pixel as heavy as its target is dark, 0 for white to 1 for black.

    Nine pixels of ten are almost white: without it the median of what a stroke could be is pale.
    """
    return ((tones - target).abs() * (1 - target)).mean()


def similarity(tones: Tensor, target: Tensor) -> Tensor:
    """Structural dissimilarity, the mean of 1 - SSIM over SCALES scales.

    The mean, not the product of Wang et al. 2003 (doi:10.1109/ACSSC.2003.1292216), which a single
    scale near zero would stall. The absolute error alone blurs hatching away.
    """
    # Every second window at full size: they still overlap by 9 pixels of 11.
    values = [ssim_map(tones, target, every=2).mean()]
    for _ in range(SCALES - 1):
        tones, target = functional.avg_pool2d(tones, 2), functional.avg_pool2d(target, 2)
        values.append(ssim_map(tones, target).mean())
    return 1 - torch.stack(values).mean()


def tone(tones: Tensor, target: Tensor) -> Tensor:
    """1-D Wasserstein distance between the tones of a crop and those of its target, mean of crops.

    In one dimension it is the mean distance of the sorted values. It punishes fading: a sketch may
    err in where a stroke lies, but not in how many strokes are how dark.
    """
    # Every second pixel each way; sorting all of them takes four times as long.
    ours, theirs = (x[..., ::2, ::2].flatten(1).sort(dim=1).values for x in (tones, target))
    return (ours - theirs).abs().mean()


TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "absolute": absolute,
    "dark": dark,
    "similarity": similarity,
    "tone": tone,
}
"""Each from tones and target, float32 (N, 1, H, W) in 0..1, H and W at least 44, to a scalar, 0
where they are equal; by the name of its weight in `LossWeights`."""


def sketch_loss(tones: Tensor, target: Tensor, weights: LossWeights) -> dict[str, Tensor]:
    """The terms that have a weight, weighted; their sum is the loss."""
    return {
        name: weight * term(tones, target)
        for name, term in TERMS.items()
        if (weight := getattr(weights, name))
    }


def ssim_map(a: Tensor, b: Tensor, every: int = 1) -> Tensor:
    """Structural similarity of Wang et al. 2004 (doi:10.1109/TIP.2003.819861), Gaussian 11, 1.5.

    a, b: float (N, 1, H, W) in 0..1, H and W at least 11. Returns the windows that lie within the
    image, (N, 1, H - 10, W - 10), or every `every`-th of them in each direction; values in -1..1.
    """
    rows, columns = (_windows(length, every, a) for length in a.shape[2:])
    # As matrix products: on a CPU 2.6 times as fast as convolutions of one channel.
    blurred = rows @ torch.cat([a, b, a * a, b * b, a * b]) @ columns.T
    mean_a, mean_b, square_a, square_b, product = blurred.chunk(5)
    var_a, var_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return luminance * structure


def _windows(length: int, every: int, like: Tensor) -> Tensor:
    """A matrix whose rows are the Gaussian at each place within a line, `every` pixels apart."""
    pixels = torch.arange(length, device=like.device)
    offsets = pixels - pixels[: length - _WINDOW + 1 : every, None]
    weights = torch.exp(-((offsets - _WINDOW // 2) ** 2).to(like.dtype) / (2 * _SIGMA**2))
    weights = weights * ((offsets >= 0) & (offsets < _WINDOW))
    return weights / weights.sum(dim=1, keepdim=True)
