"""What one writes who has no engine: `python -m bench.cpu.loop PAGES OUT --mode sketch`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray


def main() -> None:
    """Converts every file of a folder, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mode", choices=("dodge", "sketch"), default="sketch")
    parser.add_argument("--precision", choices=("fp32", "half"), default="fp32")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    convert = dodge if options.mode == "dodge" else sketcher(options.precision)
    for path in sorted(options.pages.iterdir()):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(options.out / f"{path.stem}.png"), convert(np.asarray(gray, np.uint8)))


def dodge(gray: Gray) -> Gray:
    """The classic filter."""
    blurred = cv2.GaussianBlur(gray, (21, 21), 0)
    return np.asarray(cv2.divide(gray, blurred, scale=256), np.uint8)


def hint(page: Gray, pencil: Gray) -> NDArray[np.float32]:
    """How dark strokes are in cells of 8 x 8 pixels, as the model's `hint_recipe` tells."""
    ink = (page == 0).astype(np.float32)
    dark = ink * (255 - pencil)
    cells = page.shape[1] // 8, page.shape[0] // 8
    sums, counts = (
        cv2.GaussianBlur(cv2.resize(each, cells, interpolation=cv2.INTER_AREA), (33, 33), 4)
        for each in (dark, ink)
    )
    mean = dark.sum() / max(ink.sum(), 1)
    levels = (sums + 0.01 * mean) / (counts + 0.01)  # where there is no stroke, that of the page
    return np.asarray((1 + 254 * levels / 255) / 255, np.float32)


def sketcher(precision: str) -> Callable[[Gray], Gray]:
    """Threshold, median, hint, and the U-Net in PyTorch."""
    import torch

    from bench.cpu.unet import lite

    network = lite()
    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "half" else None

    def sketch(gray: Gray) -> Gray:
        page = cv2.adaptiveThreshold(
            gray, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 9, 2
        )
        page = cv2.medianBlur(page, 3)
        height, width = page.shape
        page, pencil = (
            np.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge")
            for plane in (np.asarray(page, np.uint8), dodge(gray))
        )
        binary = torch.from_numpy(page)[None, None].float() / 255
        darkness = torch.from_numpy(hint(page, pencil))[None, None]
        with torch.inference_mode(), mixed or contextlib.nullcontext():
            tones = network(binary, darkness)[0, 0, :height, :width].float().numpy()
        return np.asarray((tones * 255).round(), np.uint8)

    return sketch


if __name__ == "__main__":
    main()
