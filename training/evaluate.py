"""Measure a model on whole pages at their own size, against the dodge filter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sketchify_rt import Sketchifier
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.options import Precision
from sketchify_rt.tiling import pad
from training import metrics
from training.checkpoint import load_model
from training.data import as_tensor
from training.metrics import Metrics
from training.pages import Pages

Predict = Callable[[Gray], Gray]
"""From a gray page to its sketch, uint8 (H, W) both."""


def evaluate(predict: Predict, pages: Pages) -> list[Metrics]:
    """The figures of each page."""
    return [
        metrics.measure(predict(np.ascontiguousarray(gray)), native.dodge(gray))
        for gray in tqdm(pages.images, unit="page")
    ]


def predictor(model: str, precision: Precision = "fp32") -> Predict:
    """A checkpoint (.pt) run by PyTorch, or a model name or .onnx path by the engine itself.

    In float32, or "int8", so that the figures do not depend on the machine.
    """
    if model.endswith(".pt") and precision == "fp32":
        return _torch_predictor(Path(model))
    return Sketchifier(model, precision=precision)


def white(gray: Gray) -> Gray:
    """The baseline of a sketch that shows nothing."""
    return np.full_like(gray, 255)


def blurred_binary(gray: Gray) -> Gray:
    """The baseline without a network: the binary, blurred 3x3, at 0.35 strength."""
    ink = 255 - cv2.GaussianBlur(native.binarize(gray), (3, 3), 0).astype(np.float32)
    return np.asarray(np.rint(255 - 0.35 * ink), np.uint8)


def _torch_predictor(checkpoint: Path) -> Predict:
    model = load_model(checkpoint)
    stride = model.config.stride

    def predict(gray: Gray) -> Gray:
        height, width = gray.shape
        with torch.no_grad():
            tones: Tensor = model(as_tensor(pad(native.binarize(gray), stride)[None]))
        return native.compose(tones[0, 0, :height, :width].numpy())

    return predict
