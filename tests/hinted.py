"""A small model that takes a hint, with random weights, for tests of runtimes and engines."""

from __future__ import annotations

from pathlib import Path

import torch

from sketchify_rt.models import Model
from training.export import write
from training.model import UNet
from training.recipe import UNetConfig


def hinted(path: Path) -> Model:
    """Writes it. Its tones depend on the hint by several levels."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(width=4, depth=1, hint=True, norms=False))
    with torch.no_grad():
        network.get_parameter("down.0.0.weight")[:, -1] *= 20
    return Model(path, write(network, path, credit="nobody", training={}))
