"""Give a larger U-Net the weights of a smaller one, so that it computes the same at first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.model import UNet
from training.recipe import UNetConfig


def grow(weights: Mapping[str, Tensor], small: UNetConfig, large: UNet) -> dict[str, Tensor]:
    """Weights for `large`, wider by a whole factor or deeper than `small`, of which `weights` are.

    Net2Net (Chen, Goodfellow and Shlens 2016, arXiv:1511.05641). Each feature becomes `factor`
    equal ones, and what reads it shares its weight among them at random, or equal ones would stay
    so. A level more begins as one whose result the level above does not use. The random numbers
    are torch's. Raises ValueError where the shapes do not allow it.
    """
    config = large.config
    factor = config.width // small.width
    if (
        small.unshuffle != config.unshuffle
        or factor * small.width != config.width
        or config.depth < small.depth
    ):
        raise ValueError(f"{small} does not grow into {config}; give its shape with --set model...")
    if small.norms or config.norms:
        raise ValueError(
            "a U-Net with BatchNorm does not grow, nor lose it; export it, and take the .onnx file "
            "with --set model.norms=false"
        )
    grown = dict(large.state_dict())
    for name, values in weights.items():
        grown[name] = _wider(name, values, factor)
    for level in range(small.depth, config.depth):
        _pass_by(grown, level)
    return grown


def _wider(name: str, values: Tensor, factor: int) -> Tensor:
    layer = name.split(".")[0]
    if values.dim() == 1:  # of the head, one for each pixel within the stem's
        return values if layer == "head" else values.repeat(factor)
    reads, makes = (0, 1) if layer == "up" else (1, 0)
    if layer != "head":
        values = torch.cat([values] * factor, dim=makes)
    if name == "down.0.0.weight":  # reads pixels
        return values
    # A merge's first convolution reads two lists of features, one behind the other.
    lists = 2 if layer == "merge" and name.split(".")[2] == "0" else 1
    parts = [_shared(part, reads, factor) for part in values.chunk(lists, dim=reads)]
    return torch.cat(parts, dim=reads)


def _shared(values: Tensor, dim: int, factor: int) -> Tensor:
    """Repeated along `dim`, with shares of each weight that add up to it."""
    repeated = torch.stack([values] * factor)
    shares = 1 / factor + 0.5 * torch.randn_like(repeated) / factor
    shares += (1 - shares.sum(0)) / factor
    return torch.cat(list(repeated * shares), dim=dim)


def _pass_by(weights: dict[str, Tensor], level: int) -> None:
    """Make the merge of a level give what its encoder gave, in place; after a ReLU none is < 0."""
    for place in "0", "3":
        weight = torch.zeros_like(weights[f"merge.{level}.{place}.weight"])
        features = weight.shape[0]
        # The last features read: those of the encoder, behind those from below.
        weight[:, -features:, 1, 1] = torch.eye(features)
        weights[f"merge.{level}.{place}.weight"] = weight
        weights[f"merge.{level}.{place}.bias"] = torch.zeros(features)
