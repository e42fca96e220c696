"""What an ONNX file tells of itself, so that others can run it without this package."""

from __future__ import annotations

import onnx

_PREPARE = (
    "gray: uint8 luma, upright, transparency on white. "
    "binary = medianBlur(adaptiveThreshold(gray, 255, ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, "
    "9, 2), 3) of OpenCV: uint8, 0 ink, 255 paper. Below and on the right repeat its last row and "
    "column until both sides are multiples of {stride}; divide by 255."
)


def describe(
    model: onnx.ModelProto, stride: int, halo: int, credit: str, licence: str | None = None
) -> None:
    """Write `metadata_props` anew, in place: strings that tell how the file is used.

    stride, halo, credit: see `Manifest`. licence: of the weights, an SPDX expression; None where it
    is not known, and then there is no such entry.
    """
    entries = {
        "description": "U-Net that paints pencil tones from a black and white page; sketchify-rt",
        "input": f"binary: float32 (N, 1, H, W), 0 ink, 1 paper; H, W multiples of {stride}",
        "input_recipe": _PREPARE.format(stride=stride),
        "output": "tones: float32 (N, 1, H, W), 0 ink, 1 paper",
        "output_recipe": "sketch = round(255 * clip(tones, 0, 1)), uint8, cut to the size of gray",
        "stride": str(stride),
        "halo": str(halo),
        "credit": credit,
    }
    if licence is not None:
        entries["model_license"] = licence  # the name that ONNX has for it
    onnx.helper.set_model_props(model, entries)
