"""What an ONNX file tells of itself, so that others can run it without this package."""

from __future__ import annotations

import onnx

from training.recipe import UNetConfig

_PREPARE = (
    "gray: uint8 luma, upright, transparency on white. "
    "binary = medianBlur(adaptiveThreshold(gray, 255, ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, "
    "9, 2), 3) of OpenCV: uint8, 0 ink, 255 paper. Below and on the right repeat its last row and "
    "column until both sides are multiples of {stride}; divide by 255."
)
_HINT = (
    "darkness = 255 - divide(gray, GaussianBlur(gray, (21, 21), 0), scale=256) of OpenCV. Sum it, "
    "and the count, over the black pixels of each cell of 8 x 8; blur both with a Gaussian of 4 "
    "cells; hint = (1 + 254 * sums / counts / 255) / 255, with the mean of the page where counts "
    "are near 0. A number everywhere is allowed as well: 0 is not known, 1 is ink."
)


def describe(
    model: onnx.ModelProto, config: UNetConfig, credit: str, licence: str | None = None
) -> None:
    """Replace `metadata_props`, in place, by strings that tell how the file is used.

    Args:
        model: The graph of a U-Net.
        config: Its shape.
        credit: See `Manifest`.
        licence: Of the weights, an SPDX expression; None leaves that entry out.
    """
    stride = config.stride
    entries = {
        "description": "U-Net that paints pencil tones from a black and white page; sketchify-rt",
        "input": f"binary: float32 (N, 1, H, W), 0 ink, 1 paper; H, W multiples of {stride}",
        "input_recipe": _PREPARE.format(stride=stride),
        "output": "tones: float32 (N, 1, H, W), 0 ink, 1 paper",
        "output_recipe": "sketch = round(255 * clip(tones, 0, 1)), uint8, cut to the size of gray",
        "stride": str(stride),
        "halo": str(config.halo),
        "credit": credit,
    }
    if config.hint:
        entries["hint"] = "hint: float32 (N, 1, H / 8, W / 8), 0 not known, else darkness up to 1"
        entries["hint_recipe"] = _HINT
    if licence is not None:
        entries["model_license"] = licence  # the name that ONNX has for it
    onnx.helper.set_model_props(model, entries)
