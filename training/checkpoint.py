"""Checkpoints: one file that a run goes on from, and that export reads."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError
from training.model import UNet
from training.recipe import UNetConfig

NAME = "checkpoint.pt"  # in the folder of a run


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: an interrupted run keeps the checkpoint before."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save` wrote; `path` may be the folder of the run.

    Keys as in `State.snapshot`: "recipe", a dict of its fields, "average", the weights to use, and
    so on. Raises TrainingError where there is none that can be read.
    """
    file = path / NAME if path.is_dir() else path
    if file.exists() and not zipfile.is_zipfile(file):
        raise TrainingError(f"{file}: no checkpoint, or not all of one")
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{file}: no checkpoint that can be read ({error})") from error
    if "average" not in state:
        raise TrainingError(f"{file}: no checkpoint of this version; train it anew")
    return state


def load_model(path: Path) -> UNet:
    """The U-Net of a checkpoint with its averaged weights, float32, on the CPU, to evaluate."""
    state = load(path)
    model = UNet(UNetConfig(**state["recipe"]["model"]))
    model.load_state_dict(state["average"])
    return model.eval()
