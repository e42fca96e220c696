"""The pages as `prepare` packs them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketchify_rt.image import Gray

INDEX, PIXELS = "pages.json", "pages.u8"  # what `prepare` writes


@dataclass(frozen=True)
class Pages:
    """Gray pages as `prepare` packs them: one flat file of bytes, one JSON file of sizes.

    names: file names; images: uint8 (H, W) luma, memory-mapped; digest: SHA-256 of names and sizes.
    """

    names: tuple[str, ...]
    images: tuple[Gray, ...]

    @property
    def digest(self) -> str:  # noqa: D102
        sizes = [(name, *image.shape) for name, image in zip(self.names, self.images, strict=True)]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> Pages:
        """Open a folder that ``python -m training prepare`` wrote.

        Raises FileNotFoundError where the folder holds no prepared pages.
        """
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        flat = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r")
        names, images, offset = [], [], 0
        for entry in index:
            height, width = entry["height"], entry["width"]
            images.append(flat[offset : offset + height * width].reshape(height, width))
            names.append(entry["name"])
            offset += height * width
        return cls(tuple(names), tuple(images))
