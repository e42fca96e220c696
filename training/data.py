"""Training pairs, made on the fly from gray pages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sketchify_rt.image import Gray
from sketchify_rt.kernels import native

CROP = 256  # side in pixels of a training crop, the size of the 2017 recipe
NATIVE_SHARE = 0.5  # share of crops taken at the page's own scale; the others are reduced to CROP

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


class Crops:
    """Batches of (binary, dodge) pairs from random square crops.

    A batch depends on the seed and its number alone, so a resumed run sees what an uninterrupted
    one would have seen.
    """

    def __init__(self, pages: Pages, batch: int, seed: int) -> None:
        self._images = [image for image in pages.images if min(image.shape) >= CROP]
        if not self._images:
            raise ValueError(f"no page is at least {CROP} pixels high and wide")
        areas = np.array([image.size for image in self._images], dtype=np.float64)
        self._weights = areas / areas.sum()
        self._batch = batch
        self._seed = seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch number `step`: inputs and targets, float32 (N, 1, CROP, CROP) in 0..1."""
        rng = np.random.default_rng((self._seed, step))
        crops = [self._crop(rng) for _ in range(self._batch)]
        inputs = np.stack([native.binarize(crop) for crop in crops])
        targets = np.stack([native.dodge(crop) for crop in crops])
        return as_tensor(inputs), as_tensor(targets)

    def _crop(self, rng: np.random.Generator) -> Gray:
        image = self._images[rng.choice(len(self._images), p=self._weights)]
        height, width = image.shape
        side = CROP
        if rng.random() >= NATIVE_SHARE:  # log-uniform, as scales are
            side = int(CROP * (min(height, width) / CROP) ** rng.random())
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = np.ascontiguousarray(image[top : top + side, left : left + side])
        if side != CROP:
            crop = np.asarray(
                cv2.resize(crop, (CROP, CROP), interpolation=cv2.INTER_AREA), np.uint8
            )
        turned = np.rot90(crop, int(rng.integers(4)))
        return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def as_tensor(images: Gray) -> Tensor:
    """uint8 (N, H, W) as float32 (N, 1, H, W) in 0..1."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(255)
