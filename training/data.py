"""Training pairs, made on the fly from gray pages."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from training.pages import Pages

CROP = 256  # side in pixels of a training crop, the size of the 2017 recipe
NATIVE_SHARE = 0.5  # share of crops taken at the page's own scale; the others are reduced to CROP


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
