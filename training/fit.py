"""Train a U-Net: one loop, one checkpoint file, resumable at any step."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sketchify_rt import metrics
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from training import checkpoint, distributed
from training.data import Batches, loader
from training.errors import TrainingError
from training.evaluate import evaluate, painter
from training.interrupt import deferred
from training.losses import absolute, sketch_loss
from training.model import UNet, flop_per_pixel
from training.monitor import Monitor
from training.pages import Pages
from training.recipe import Recipe
from training.sheet import strip
from training.state import State

LOG_EVERY = 10  # steps
SHOWN, CROP = 6, 256  # validation pages shown, and how much of each in pixels
RECIPE = "recipe.json"  # in the folder of a run


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Where and how a recipe is run; the weights do not depend on it.

    pages: folder written by `prepare`; output: folder of the run. device: a torch device, "auto"
    for the GPU if there is one. workers: processes that make the batches; 0 makes them in between.
    checkpoint_every, validate_every: steps; 0 never validates. compile: let torch.compile fuse the
    U-Net (nothing is gained on a CPU; needs a C++ compiler).
    """

    pages: Path
    output: Path
    device: str = "auto"
    workers: int = 1
    checkpoint_every: int = 250
    validate_every: int = 2000
    compile: bool = False


def fit(recipe: Recipe, options: FitOptions) -> int:
    """Train, or go on with the checkpoint in ``options.output``; returns the steps done.

    They are fewer than the recipe's where SIGINT or SIGTERM asked to stop: the same call goes on
    from there, to the same weights as if it had not stopped.

    Raises TrainingError where the checkpoint belongs to another recipe or other pages, where there
    are no pages, and where the loss is no number any more.
    """
    if options.output.resolve() == options.pages.resolve():
        raise TrainingError(f"{options.output} holds the pages; choose another folder for the run")
    with distributed.group(options.device) as device:
        try:
            return _fit(recipe, options, device)
        except (RuntimeError, ConnectionError) as error:  # torch raises it anywhere in the loop
            if not isinstance(error, ConnectionError) and "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                f"a process that makes batches ended ({error}); out of memory? With fewer "
                "--workers the same command goes on from the last checkpoint"
            ) from error


def _fit(recipe: Recipe, options: FitOptions, device: torch.device) -> int:
    main = distributed.RANK == 0  # the process that writes
    teacher = checkpoint.load_model(Path(recipe.teacher)).to(device) if recipe.teacher else None
    path = options.output / checkpoint.NAME
    pages = Pages.load(options.pages, "train")
    batches = Batches(pages, recipe, distributed.RANK, distributed.WORLD)
    state = State(recipe, pages.digest, device)
    if path.exists():
        state.restore(checkpoint.load(path), path)
    if main:
        options.output.mkdir(parents=True, exist_ok=True)
        _describe(recipe, state.model, options.output / RECIPE)
    forward = distributed.parallel(state.model, device)
    if options.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    validation = Pages.load(options.pages, "val") if main and options.validate_every else None
    if main:
        _greet(recipe, state, pages, validation, device)

    bar = tqdm(
        total=recipe.steps,
        initial=state.step,
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a file needs fewer lines
        disable=not main,
    )
    begun, before, waited = time.monotonic(), state.seconds, 0.0
    telling = Monitor(options.output, state.step) if main else nullcontext()
    with bar, telling as monitor, deferred() as asked:
        source = loader(batches, state.step, options.workers)
        stop = False
        while state.step < recipe.steps and not stop:
            waiting = time.monotonic()
            binary, hint, target = (
                part.to(device, non_blocking=True).float().div_(255) for part in next(source)
            )
            waited += time.monotonic() - waiting

            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.mixed):
                pages_in = binary.contiguous(memory_format=torch.channels_last)
                tones = forward(pages_in, hint).float()
            terms = sketch_loss(tones, target, recipe.loss)
            if state.adversary is not None:
                terms["adversarial"] = recipe.loss.adversarial * state.adversary.loss(binary, tones)
            if teacher is not None:
                with torch.no_grad():
                    taught = teacher(binary)
                terms["teacher"] = recipe.loss.teacher * absolute(tones, taught)
            loss = torch.stack(list(terms.values())).sum()

            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip or torch.inf)
            for group in state.optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(state.step)
            state.optimizer.step()
            state.average.update_parameters(state.model)
            if state.adversary is not None:
                state.adversary.learn(binary, tones, target)

            state.step += 1
            passed = time.monotonic() - begun
            state.seconds = before + passed
            bar.update()
            last = state.step == recipe.steps
            stop = distributed.any_process(asked(), device)
            saving = state.step % options.checkpoint_every == 0 or last or stop
            if saving or state.step % LOG_EVERY == 0:
                _check(loss, norm, state.step, path)
            if monitor and (state.step % LOG_EVERY == 0 or last):
                values = {"loss": float(loss.detach()), "norm": float(norm)}
                values |= {f"loss/{name}": float(value.detach()) for name, value in terms.items()}
                values |= {"seconds": state.seconds, "waiting": waited / passed}
                monitor.scalars(state.step, values)
                bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
            if monitor and validation and (state.step % options.validate_every == 0 or last):
                _validate(state.average.module, validation, monitor, state.step)
            if main and saving:
                checkpoint.save(path, state.snapshot())
    return state.step


def _check(loss: Tensor, norm: Tensor, step: int, path: Path) -> None:
    """Raises TrainingError before numbers that are none get into a checkpoint."""
    if not torch.isfinite(loss + norm):
        raise TrainingError(
            f"at step {step} the loss is {float(loss.detach())} and the gradient {float(norm)} "
            f"long; {path} is from before; try a lower learning_rate or clip in another folder"
        )


def _greet(
    recipe: Recipe, state: State, pages: Pages, validation: Pages | None, device: torch.device
) -> None:
    weights = sum(weight.numel() for weight in state.model.parameters())
    tqdm.write(
        f"{weights / 1e6:.2f} million weights, {len(pages)} pages, {device}: "
        f"{state.step} of {recipe.steps} steps are done",
        sys.stderr,
    )
    if validation is not None and not len(validation):
        tqdm.write("there is no page to validate on: no figures and no crops", sys.stderr)


def _describe(recipe: Recipe, model: UNet, path: Path) -> None:
    shape = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "gflop_per_megapixel": round(flop_per_pixel(recipe.model) / 1e3, 3),
    }
    described = dataclasses.asdict(recipe) | shape
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _validate(model: nn.Module, pages: Pages, monitor: Monitor, step: int) -> None:
    """Measure the averaged weights on the validation pages, and show crops of the first ones."""
    paint = painter(model)
    figures = metrics.mean(evaluate(paint, pages))
    monitor.scalars(step, {f"val/{k}": v for k, v in dataclasses.asdict(figures).items()})
    grays = [_middle(image) for image in pages.images[:SHOWN]]
    columns = [native.binarize(g) for g in grays], list(map(paint, grays)), map(native.dodge, grays)
    monitor.picture(step, strip(*(np.stack(list(column)) for column in columns)))


def _middle(image: Gray) -> Gray:
    top, left = ((length - CROP) // 2 for length in image.shape)
    return np.ascontiguousarray(image[top : top + CROP, left : left + CROP])
