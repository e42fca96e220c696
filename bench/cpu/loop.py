"""What one writes who has no engine: `python -m bench.cpu.loop PAGES OUT --mode sketch`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

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


def sketcher(precision: str) -> Callable[[Gray], Gray]:
    """Threshold, median, and the U-Net in PyTorch."""
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
        page = cv2.copyMakeBorder(page, 0, -height % 8, 0, -width % 8, cv2.BORDER_REPLICATE)
        binary = torch.from_numpy(page)[None, None].float() / 255
        with torch.inference_mode(), mixed or contextlib.nullcontext():
            tones = network(binary)[0, 0, :height, :width].float().numpy()
        return np.asarray((tones * 255).round(), np.uint8)

    return sketch


if __name__ == "__main__":
    main()
