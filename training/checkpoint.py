"""Checkpoints: one file that a run goes on from, and that export reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.model import UNet
from training.recipe import UNetConfig


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: an interrupted run keeps the checkpoint before."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save` wrote: options, progress and the states of model and optimizer."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def load_model(checkpoint: Path) -> UNet:
    """The U-Net of a checkpoint, on the CPU in evaluation mode, float32."""
    state = load(checkpoint)
    model = UNet(UNetConfig(**state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()
