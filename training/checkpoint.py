"""Checkpoints: one file that a run goes on from, and that export reads."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from sketchify_rt.files import write
from training.errors import TrainingError
from training.model import UNet
from training.recipe import UNetConfig

NAME = "checkpoint.pt"  # in the folder of a run


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: an interrupted run keeps the checkpoint before.

    Raises OutputError where there is no room, or writing is not allowed.
    """
    content = io.BytesIO()
    torch.save(state, content)
    write(path, content.getvalue())


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save` wrote; `path` may be the folder of the run.

    Keys as in `State.snapshot`: "recipe", a dict of its fields, "average", the weights to use, and
    so on. Raises TrainingError where there is none that can be read.
    """
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise TrainingError(f"{file}: there is no checkpoint; is {path} a run?")
    remedy = "take another, or delete it and train anew"
    if not zipfile.is_zipfile(file):
        raise TrainingError(f"{file}: no checkpoint, or not all of one; {remedy}")
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{file}: is damaged; {remedy}") from error
    if not {"recipe", "average", "step"} <= state.keys():
        raise TrainingError(f"{file}: no checkpoint of this version; {remedy}")
    return state


def load_model(path: Path) -> UNet:
    """The U-Net of a checkpoint with its averaged weights, float32, on the CPU, to evaluate."""
    state = load(path)
    model = UNet(UNetConfig(**state["recipe"]["model"]))
    model.load_state_dict(state["average"])
    return model.eval()
