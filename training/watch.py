"""Follows a run: progress bar, log, validation, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sketchify_rt import metrics
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from training import checkpoint, distributed
from training.errors import TrainingError
from training.evaluate import evaluate, painter
from training.model import UNet, flop_per_pixel
from training.monitor import Monitor
from training.pages import Pages
from training.recipe import Recipe
from training.sheet import strip
from training.state import State

LOG_EVERY = 10  # steps
SHOWN, CROP = 6, 256  # validation pages shown, and how much of each in pixels
RECIPE = "recipe.json"  # in the folder of a run


class Watch:
    """Tells how a run goes and keeps its checkpoint. Of several processes the first one does it.

    A context manager: `step` is called within it, after each step.
    """

    def __init__(
        self,
        output: Path,
        state: State,
        recipe: Recipe,
        validation: Pages | None,
        checkpoint_every: int,
        validate_every: int,
    ) -> None:
        """Writes the recipe into the folder `output` of the run."""
        self._state, self._recipe, self._validation = state, recipe, validation
        self._checkpoint_every, self._validate_every = checkpoint_every, validate_every
        self._path = output / checkpoint.NAME
        self._main = distributed.RANK == 0
        self._begun, self._before, self._waited = time.monotonic(), state.seconds, 0.0
        self._bar = tqdm(
            total=recipe.steps,
            initial=state.step,
            unit="step",
            mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a file needs fewer lines
            disable=not self._main,
        )
        self._monitor = None
        if self._main:
            output.mkdir(parents=True, exist_ok=True)
            _describe(recipe, state.model, output / RECIPE)
            self._monitor = Monitor(output, state.step)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._monitor:
            self._monitor.__exit__()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within as waiting for the next batch."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    def step(self, loss: Tensor, norm: Tensor, terms: Mapping[str, Tensor], stop: bool) -> None:
        """Logs, validates and saves what is due after a step.

        Args:
            loss: Of the step.
            norm: Length of its gradient.
            terms: Of the loss, weighted, by name.
            stop: Whether the run stops here.

        Raises:
            TrainingError: Loss or gradient are no finite numbers; the checkpoint is from before.
        """
        state, passed = self._state, time.monotonic() - self._begun
        state.seconds = self._before + passed
        self._bar.update()
        last = state.step == self._recipe.steps
        saving = state.step % self._checkpoint_every == 0 or last or stop
        if saving or state.step % LOG_EVERY == 0:
            _check(loss, norm, state.step, self._path)
        if self._monitor is None:
            return
        if state.step % LOG_EVERY == 0 or last:
            values = {"loss": float(loss.detach()), "norm": float(norm)}
            values |= {f"loss/{name}": float(value.detach()) for name, value in terms.items()}
            values |= {"seconds": state.seconds, "waiting": self._waited / passed}
            self._monitor.scalars(state.step, values)
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        if self._validation and (state.step % self._validate_every == 0 or last):
            _validate(state.average.module, self._validation, self._monitor, state.step)
        if saving:
            checkpoint.save(self._path, state.snapshot())


def greet(state: State, steps: int, pages: Pages, validation: Pages | None) -> None:
    """Tells what is about to be trained, on the standard error."""
    weights = sum(weight.numel() for weight in state.model.parameters())
    device = next(state.model.parameters()).device
    tqdm.write(
        f"{weights / 1e6:.2f} million weights, {len(pages)} pages, {device}: "
        f"{state.step} of {steps} steps are done",
        sys.stderr,
    )
    if validation is not None and not len(validation):
        tqdm.write("there is no page to validate on: no figures and no crops", sys.stderr)


def _check(loss: Tensor, norm: Tensor, step: int, path: Path) -> None:
    if not torch.isfinite(loss + norm):
        raise TrainingError(
            f"at step {step} the loss is {float(loss.detach())} and the gradient {float(norm)} "
            f"long; {path} is from before; try a lower learning_rate or clip in another folder"
        )


def _describe(recipe: Recipe, model: UNet, path: Path) -> None:
    shape = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "gflop_per_megapixel": round(flop_per_pixel(recipe.model) / 1e3, 3),
    }
    described = dataclasses.asdict(recipe) | shape
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _validate(model: nn.Module, pages: Pages, monitor: Monitor, step: int) -> None:
    """Measures the averaged weights on the validation pages, and shows crops of the first ones."""
    paint = painter(model)
    figures = metrics.mean(evaluate(paint, pages))
    monitor.scalars(step, {f"val/{k}": v for k, v in dataclasses.asdict(figures).items()})
    grays = [_middle(image) for image in pages.images[:SHOWN]]
    columns = [native.binarize(g) for g in grays], list(map(paint, grays)), map(native.dodge, grays)
    monitor.picture(step, strip(*(np.stack(list(column)) for column in columns)))


def _middle(image: Gray) -> Gray:
    top, left = ((length - CROP) // 2 for length in image.shape)
    return np.ascontiguousarray(image[top : top + CROP, left : left + CROP])
