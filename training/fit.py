"""Train a U-Net: one loop, one checkpoint file, resumable at any step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from training import checkpoint, distributed
from training.data import Batches, loader
from training.errors import TrainingError
from training.interrupt import deferred
from training.losses import sketch_loss
from training.pages import Pages
from training.recipe import Recipe
from training.state import State
from training.watch import Watch, greet


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
    pages = Pages.load(options.pages, "train")
    batches = Batches(pages, recipe, distributed.RANK, distributed.WORLD)
    state = State(recipe, pages.digest, device)
    path = options.output / checkpoint.NAME
    if path.exists():
        state.restore(checkpoint.load(path), path)
    forward = distributed.parallel(state.model, device)
    if options.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    validation = None
    if distributed.RANK == 0:
        validation = Pages.load(options.pages, "val") if options.validate_every else None
        greet(state, recipe.steps, pages, validation)

    every = options.checkpoint_every, options.validate_every
    with Watch(options.output, state, recipe, validation, *every) as watch, deferred() as asked:
        source = loader(batches, state.step, options.workers)
        stop = False
        while state.step < recipe.steps and not stop:
            with watch.waiting():
                binary, hint, target = (
                    part.to(device, non_blocking=True).float().div_(255) for part in next(source)
                )
            for group in state.optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(state.step)

            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.mixed):
                images = binary.contiguous(memory_format=torch.channels_last)
                tones = forward(images, hint).float()
            terms = sketch_loss(tones, target, recipe.loss)
            if state.adversary is not None:
                terms["adversarial"] = recipe.loss.adversarial * state.adversary.loss(binary, tones)
            loss = torch.stack(list(terms.values())).sum()

            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip or torch.inf)
            state.optimizer.step()
            state.average.update_parameters(state.model)
            if state.adversary is not None:
                state.adversary.learn(binary, tones, target)

            state.step += 1
            stop = distributed.any_process(asked(), device)
            watch.step(loss, norm, terms, stop)
    return state.step
