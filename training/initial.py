"""The weights that a run begins with: those of another run, or of an exported model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from sketchify_rt import models
from training import checkpoint
from training.errors import TrainingError
from training.grow import grow
from training.model import UNet
from training.recipe import UNetConfig

_FIRST = "down.0.0.weight"  # of the convolution that reads the page
_HISTORY = ("recipe", "step", "seconds", "initial")  # what is kept of a run


def exported(source: str) -> bool:
    """Whether `source` is the path of an ONNX file or the name of a shipped model, and no run."""
    return source.endswith(".onnx") or source in models.available_models()


def shape(source: str) -> UNetConfig:
    """Of the U-Net of a run, a checkpoint, or an exported model, which has no norms any more.

    Raises TrainingError, ModelError.
    """
    if exported(source):
        architecture = models.load(source).manifest.architecture
        return dataclasses.replace(UNetConfig(**architecture), norms=False)
    return UNetConfig(**checkpoint.load(Path(source))["recipe"]["model"])


def begin_with(network: UNet, source: str) -> dict[str, Any]:
    """Give `network` the weights of `source`, averaged ones of a run; returns where they are from.

    A larger network than theirs computes the same as they do, if it has no norms, as exported ones
    have none. Raises TrainingError where theirs does not fit in; ModelError.
    """
    theirs, ours = shape(source), network.config
    if exported(source):
        model = models.load(source)
        weights = _weights(model.read(), theirs)
        told = model.manifest.training
        history = {name: value for name, value in told.items() if name not in ("data", "minutes")}
        history["seconds"] = 60 * told["minutes"]
    else:
        state = checkpoint.load(Path(source))
        weights, history = state["average"], {name: state.get(name) for name in _HISTORY}
    if ours.hint and not theirs.hint:
        theirs = dataclasses.replace(theirs, hint=True)
        weights = {**weights, _FIRST: _with_hint(weights[_FIRST])}
    if theirs != ours:
        try:
            weights = grow(weights, theirs, network)
        except ValueError as error:
            raise TrainingError(f"{source}: {error}") from error
    network.load_state_dict(weights)
    return history


def _with_hint(weight: Tensor) -> Tensor:
    """Of the first convolution, with zeros for the hint: it computes the same at first."""
    return torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)


def _weights(content: bytes, config: UNetConfig) -> dict[str, Tensor]:
    """Of an exported model, in float32, by the names that they have in a U-Net without norms."""
    weights = {
        weight.name.removesuffix(".fp16"): torch.from_numpy(
            numpy_helper.to_array(weight).astype("float32")
        )
        for weight in onnx.load_from_string(content).graph.initializer
        if ".weight" in weight.name or ".bias" in weight.name  # not the scale of the hint
    }
    # The stem, as in `export.inference_form` but back: (.., tap row, row within, ..) each way.
    u, width = config.unshuffle, config.width
    taps = weights[_FIRST].reshape(width, 1 + config.hint, 3, u, 3, u)
    pixels = taps[:, 0].permute(0, 2, 4, 1, 3).reshape(width, u * u, 3, 3)
    weights[_FIRST] = torch.cat([pixels, taps[:, 1:].sum(dim=(3, 5))], dim=1)
    return weights
