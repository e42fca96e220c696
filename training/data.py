"""Training pairs, made on the fly: what the engine's filters make of a crop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sketchify_rt.image import Gray, fit, resize
from sketchify_rt.kernels import native, reference
from training import augment
from training.errors import TrainingError
from training.pages import Pages
from training.recipe import Recipe
from training.scenes import scene
from training.screentone import screentone


class Batch(NamedTuple):
    """Crops, uint8 or, once loaded, tensors of it.

    binary, target: (N, 1, side, side). hint: (N, 1, side / 8, side / 8), see `reference.hint`.
    """

    binary: Any
    hint: Any
    target: Any


class _Crop(NamedTuple):
    """One crop.

    Attributes:
        binary: uint8 (side, side), as is `target`.
        seen: The luma that the binary was made of.
        target: What the U-Net should paint.
        darkness: Of the pencil, 0..1, for a page that is black and white already.
    """

    binary: Gray
    seen: Gray
    target: Gray
    darkness: float | None = None


class Batches(Dataset[Any]):
    """Batches of (binary, dodge) pairs, by the number of the step.

    A crop depends on the recipe's seed and its own number alone, so a resumed run sees what an
    uninterrupted one would have seen, and so do several processes, of which each takes its share
    of every batch.
    """

    def __init__(self, pages: Pages, recipe: Recipe, rank: int = 0, world: int = 1) -> None:
        """`rank` of `world` processes. Raises TrainingError where no page is large enough."""
        self._recipe = recipe
        self._images = [image for image in pages.images if min(image.shape) >= recipe.crop]
        if not pages.images:
            raise TrainingError("there is no page to train on; prepare with a smaller --val-share")
        if not self._images:
            raise TrainingError(
                f"no page is at least {recipe.crop} pixels high and wide; prepare larger ones, or "
                "take smaller crops, as by --set crop=256"
            )
        areas = np.array([image.size for image in self._images], dtype=np.float64)
        self._weights = areas / areas.sum()
        self._share = range(rank, recipe.batch, world)

    def __len__(self) -> int:
        return self._recipe.steps

    def __getitem__(self, step: int) -> Batch:
        """Batch number `step`."""
        numbers = [step * self._recipe.batch + place for place in self._share]
        make = self._whole if self._recipe.data == "squares" else self._crop
        crops = [make(number) for number in numbers]
        hints = [self._hint(crop, number) for crop, number in zip(crops, numbers, strict=True)]
        columns = [crop.binary for crop in crops], hints, [crop.target for crop in crops]
        return Batch(*(np.stack(column)[:, None] for column in columns))

    def _hint(self, crop: _Crop, number: int) -> Gray:
        """Not known, the mean or a pencil everywhere, or the map of a sigma of 20 to 64 pixels."""
        # Numbers of their own: the crops are those of a recipe without a hint.
        rng = np.random.default_rng((self._recipe.seed, number, 1))
        chance, sigma = rng.random(), 2.5 * 3.2 ** rng.random()
        shape = [-(-side // reference.CELL) for side in crop.binary.shape]
        if crop.darkness is not None:
            return np.full(shape, round(1 + 254 * crop.darkness), np.uint8)
        if not self._recipe.model.hint or chance < self._recipe.no_hint:
            return np.zeros(shape, np.uint8)
        tones = native.dodge(crop.seen)
        if chance < self._recipe.no_hint + self._recipe.mean_hint:
            black = crop.binary == 0
            darkness = 255 - tones[black].mean() if black.any() else -1
            return np.full(shape, round(1 + 254 / 255 * darkness) if darkness >= 0 else 0, np.uint8)
        return reference.hint(crop.binary, tones, sigma)

    def _whole(self, number: int) -> _Crop:
        """Each page once an epoch, as the 2017 recipe cut it."""
        epoch, place = divmod(number, len(self._images))
        order = np.random.default_rng((self._recipe.seed, epoch)).permutation(len(self._images))
        image = self._images[order[place]]
        rows, columns, height, width = fit(image.shape, None, self._recipe.crop)
        return _pair(resize(image[rows, columns], height, width))

    def _crop(self, number: int) -> _Crop:
        rng = np.random.default_rng((self._recipe.seed, number))
        augmented = self._recipe.data == "augmented"
        if augmented and rng.random() >= self._recipe.augmented:
            page = self._images[rng.choice(len(self._images), p=self._weights)]
            return _pair(augment.cut(page, self._recipe.crop, rng))
        if augmented and rng.random() < 0.1:
            gray = scene(rng, self._recipe.crop)
        elif augmented and self._recipe.pages and rng.random() < self._recipe.pages:
            return self._black_and_white(rng)
        else:
            page = self._images[rng.choice(len(self._images), p=self._weights)]
            gray = augment.crop(page, self._recipe.crop, rng)
            if augmented:
                gray = _one_of(((augment.ink, self._recipe.ink), *_MEDIA), gray, rng)
        if not augmented:
            return _pair(gray)
        gray = _each_of(_EXPOSURES, gray, rng)
        damaged = _each_of(_DAMAGES, gray, rng)  # to be mended: the target has none of it
        binarize = augment.binarize if rng.random() < 0.1 else _engine
        return _Crop(binarize(damaged, rng), damaged, native.dodge(gray))

    def _black_and_white(self, rng: np.random.Generator) -> _Crop:
        """A page drawn by a pencil. One in five is ink, the darkness that others hardly reach."""
        if rng.random() < 0.3:
            gray = scene(rng, self._recipe.crop)
        else:
            page = self._images[rng.choice(len(self._images), p=self._weights)]
            gray = augment.crop(page, self._recipe.crop, rng)
        if rng.random() < 0.3:
            gray = augment.hatched(gray, rng)
        darkness = min(1.0, rng.uniform(0.1, 1.25))
        binary, drawing = augment.page(gray, darkness, rng)
        return _Crop(binary, binary, drawing, darkness)


def _pair(gray: Gray) -> _Crop:
    return _Crop(native.binarize(gray), gray, native.dodge(gray))


Change = Callable[[Gray, np.random.Generator], Gray]

# With the share of the crops that each is made to.
_MEDIA = ((augment.pencil, 0.03), (screentone, 0.03))
_EXPOSURES = ((augment.tone_curve, 0.3), (augment.soften, 0.1))
_DAMAGES = ((augment.jpeg, 0.1), (augment.grain, 0.1))


def _one_of(changes: Iterable[tuple[Change, float]], gray: Gray, rng: np.random.Generator) -> Gray:
    chosen = rng.random()
    for change, share in changes:
        if chosen < share:
            return change(gray, rng)
        chosen -= share
    return gray


def _each_of(changes: Iterable[tuple[Change, float]], gray: Gray, rng: np.random.Generator) -> Gray:
    for change, share in changes:
        if rng.random() < share:
            gray = change(gray, rng)
    return gray


def _engine(gray: Gray, rng: np.random.Generator) -> Gray:
    return native.binarize(gray)


def loader(batches: Batches, first: int, workers: int) -> Iterator[Batch]:
    """The batches from number `first` on, in order, as uint8 tensors; `workers` processes."""
    loading = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        worker_init_fn=_leave_signals if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else each start takes a number from the run's own
    )
    # The processes share the cores already. Told here, since a process that was forked from one
    # with a pool of threads waits for them for ever when it is told to end them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loading)
    finally:
        cv2.setNumThreads(threads)


def _leave_signals(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the run, which ends them itself
        signal.signal(number, signal.SIG_IGN)


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W) as float32 (N, 1, H, W) in 0..1."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(255)
