"""Writes the sample pictures: `python -m samples.draw [--output samples]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.draw import island, lake, page, portrait, still_life

_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Sample:
    """A picture and the file it goes to.

    mode: Pillow's, "RGBA", "RGB" or "L". levels: greys kept of mode "L", None for all.
    orientation: EXIF; 6 stores the picture a quarter turned to the left, for viewers to turn back.
    """

    draw: Callable[[], NDArray[np.uint8]]
    mode: str = "RGB"
    levels: int | None = None
    orientation: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def image(self) -> Image.Image:
        """The picture as it is stored, before it is compressed."""
        drawn = self.draw()
        if self.mode == "RGBA":
            drawn[..., :3] &= 0xFE  # half as many levels, a sixth off the PNG
            return Image.fromarray(drawn)
        if self.mode == "RGB":
            turned = np.rot90(drawn[..., :3]) if self.orientation == 6 else drawn[..., :3]
            return Image.fromarray(np.ascontiguousarray(turned))
        gray = cv2.cvtColor(np.ascontiguousarray(drawn[..., :3]), cv2.COLOR_RGB2GRAY)
        if self.levels:
            step = 255 / (self.levels - 1)
            gray = np.rint(np.rint(gray / step) * step).astype(np.uint8)
        return Image.fromarray(gray)

    def save(self, path: Path) -> None:
        """Writes the picture; the folder is made where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if self.orientation != 1:
            exif[_ORIENTATION] = self.orientation
        self.image().save(path, exif=exif, **self.options)


SAMPLES = {
    "portrait.webp": Sample(portrait.draw, options={"quality": 88, "method": 6}),
    "lake.jpg": Sample(lake.draw, options={"quality": 84, "optimize": True}),
    "still-life.jpg": Sample(
        still_life.draw, orientation=6, options={"quality": 84, "optimize": True}
    ),
    "island.png": Sample(island.draw, mode="RGBA", options={"optimize": True}),
    "pages/001.png": Sample(page.draw, mode="L", levels=16, options={"optimize": True}),
}


def main() -> None:
    """Draws all samples into a folder."""
    parser = argparse.ArgumentParser(prog="python -m samples.draw", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("samples"), help="folder to write to")
    folder = parser.parse_args().output
    for name, sample in SAMPLES.items():
        sample.save(folder / name)


if __name__ == "__main__":
    main()
