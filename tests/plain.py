"""A small model that takes no hint, with random weights, as users may have some."""

from __future__ import annotations

from pathlib import Path

import torch

from sketchify_rt.models import Model
from training.export import write
from training.model import UNet
from training.recipe import UNetConfig


def plain(path: Path) -> Model:
    """Writes it, and its manifest beside it."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(width=4, depth=1, norms=False))
    return Model(path, write(network, path, credit="nobody", training={}))
