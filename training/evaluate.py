"""Measure a model against the dodge filter, whole pages or the squares of 2017."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from sketchify_rt import Sketchifier, metrics, models
from sketchify_rt.image import Gray, fit, resize
from sketchify_rt.kernels import native, reference
from sketchify_rt.metrics import Metrics
from sketchify_rt.tiling import pad
from training import checkpoint
from training.data import as_tensor
from training.errors import TrainingError
from training.evaluation import Evaluation, Figures, Measured, Size
from training.model import UNet, flop_per_pixel
from training.pages import Pages
from training.sheet import Shown, best_median_worst, sheet

_PACKAGES = ("sketchify-rt", "numpy", "opencv-python-headless", "torch", "openvino")

Predict = Callable[[Gray], Gray]
"""From a gray page to its sketch, uint8 (H, W) both."""


def evaluate(predict: Predict, pages: Pages, size: Size = "native") -> list[Metrics]:
    """The figures of each page."""
    grays = (
        at_size(page, size) for page in tqdm(pages.images, unit="page", leave=False, disable=None)
    )
    return [metrics.measure(predict(gray), native.dodge(gray)) for gray in grays]


def at_size(page: Gray, size: Size) -> Gray:
    """What is measured of a page: uint8 (H, W), contiguous."""
    shape = (page.shape[0], page.shape[1])
    rows, columns, height, width = fit(shape, None, 256 if size == "256" else None)
    return resize(page[rows, columns], height, width)


def predictor(model: str, int8: bool = False, hint: bool = True) -> Predict:
    """A run or a checkpoint (.pt) by PyTorch, a model name or .onnx path by the engine itself.

    In float32, or with the INT8 form, so that the figures do not depend on the machine. Pages are
    thresholded even if they are black and white already, for the dodge filter is of no other page.

    Args:
        model: What to run.
        int8: Whether to run the INT8 form.
        hint: Whether a model that takes a hint gets it.

    Raises:
        ModelError: There is no such model.
        TrainingError: There is no such checkpoint.
    """
    file = _checkpoint(model, int8)
    if file is not None:
        return painter(checkpoint.load_model(file), hint)
    return Sketchifier(
        model,
        precision="int8" if int8 else "fp32",
        binary="threshold",
        hint="auto" if hint else "none",
    )


def painter(model: nn.Module, hint: bool = True) -> Predict:
    """A U-Net where it is, put into evaluation mode. hint: whether it gets one, if it takes one."""
    unet = cast("UNet", model.eval())
    stride = unet.config.stride
    device = next(unet.parameters()).device

    def predict(gray: Gray) -> Gray:
        height, width = gray.shape
        with torch.no_grad():
            binary = native.binarize(gray)
            page = as_tensor(pad(binary, stride)[None]).to(device)
            cells = None
            if hint and unet.config.hint:
                plane = reference.hint(binary, native.dodge(gray))
                rows, columns = (side // reference.CELL for side in page.shape[2:])
                missing = (0, rows - plane.shape[0]), (0, columns - plane.shape[1])
                cells = as_tensor(np.pad(plane, missing, mode="edge")[None]).to(device)
            tones: Tensor = unet(page, cells)
        return native.compose(tones[0, 0, :height, :width].cpu().numpy())

    return predict


def white(gray: Gray) -> Gray:
    """The baseline of a sketch that shows nothing."""
    return np.full_like(gray, 255)


def blurred_binary(gray: Gray) -> Gray:
    """The baseline without a network: the binary, blurred 3x3, at 0.35 strength."""
    ink = 255 - cv2.GaussianBlur(native.binarize(gray), (3, 3), 0).astype(np.float32)
    return np.asarray(np.rint(255 - 0.35 * ink), np.uint8)


BASELINES: dict[str, Predict] = {"white": white, "blurred": blurred_binary}


def describe(model: str, int8: bool = False) -> Measured:
    """What `predictor` runs. Raises TrainingError, ModelError."""
    file = _checkpoint(model, int8)
    if file is not None:
        state = checkpoint.load(file)
        unet = checkpoint.load_model(file)
        return Measured(
            name=model,
            kind="checkpoint",
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            step=state["step"],
            minutes=round(state["seconds"] / 60, 1),
            parameters=sum(p.numel() for p in unet.parameters()),
            gflop_per_megapixel=round(flop_per_pixel(unet.config) / 1e3, 3),
            recipe=state["recipe"],
        )
    found = models.load(model)
    manifest = found.manifest
    known = manifest.training
    recipe = {name: value for name, value in known.items() if name not in ("step", "minutes")}
    return Measured(
        name=model,
        kind="int8" if int8 else "onnx",
        sha256=hashlib.sha256(found.read("int8" if int8 else "float")).hexdigest(),
        step=known.get("step"),
        minutes=known.get("minutes"),
        parameters=manifest.parameters,
        gflop_per_megapixel=manifest.gflop_per_megapixel,
        recipe={"model": manifest.architecture, **recipe},
    )


def measure(
    model: Measured, predict: Predict, pages: Pages, sizes: Sequence[Size], baselines: bool
) -> Evaluation:
    """Everything that is measured of a model, and of the baselines if asked for."""

    def figures(predict: Predict) -> Figures:
        return {
            size: dict(zip(pages.names, evaluate(predict, pages, size), strict=True))
            for size in sizes
        }

    others = BASELINES if baselines else {}
    return Evaluation(
        model,
        pages.digest,
        {package: version(package) for package in _PACKAGES},
        figures(predict),
        {name: figures(baseline) for name, baseline in others.items()},
    )


def sheet_of(evaluation: Evaluation, predict: Predict, pages: Pages) -> Image:
    """The pages with the best, the median and the worst SSIM at the first size measured."""
    size, figures = next(iter(evaluation.figures.items()))
    rows = list(figures.values())
    shown = []
    for which, place in best_median_worst([row.ssim for row in rows]).items():
        gray = at_size(pages.images[place], size)
        values = "  ".join(f"{name} {value:.4g}" for name, value in asdict(rows[place]).items())
        shown.append(Shown(f"{which}: {pages.names[place]}   {values}", gray, predict(gray)))
    title = (
        f"{evaluation.model.name}, {size}, {len(rows)} pages by SSIM; "
        "differences doubled, orange where the sketch is too dark, blue where it is too pale"
    )
    return sheet(title, shown)


def _checkpoint(model: str, int8: bool) -> Path | None:
    """The file of a run or checkpoint; None where `model` must be an ONNX file."""
    path = Path(model)
    folder = path.is_dir() and model not in models.available_models()
    if not folder and path.suffix != ".pt":
        return None
    if int8:
        raise TrainingError(f"{model}: a checkpoint has no INT8 form; export and quantize it first")
    return path / checkpoint.NAME if folder else path
