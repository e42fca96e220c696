"""`python -m training fit`: train a U-Net."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from training.recipe import RECIPES, Recipe, changed

_ADVERSARIAL = 0.01  # of the terms, about a tenth of the loss of a trained model


@click.command(short_help="Train on prepared pages.")
@click.argument("pages", type=click.Path(path_type=Path, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--recipe", "name", type=click.Choice(list(RECIPES)), default="lite", help="What to begin with."
)
@click.option(
    "--steps", type=click.IntRange(1), help="Optimizer steps in all.  [default: of the recipe]"
)
@click.option("--seed", type=click.IntRange(0), default=Recipe.seed, help="Of weights and crops.")
@click.option("--adversarial", is_flag=True, help=f"Same as --set loss.adversarial={_ADVERSARIAL}.")
@click.option(
    "--initial",
    help="A run, an .onnx file or a shipped model whose weights it begins with, to train on from "
    "there, or to grow: --set model.width=64.",
)
@click.option(
    "changes",
    "--set",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change the recipe: model.width=24, loss.dark=0, learning_rate=0.001, batch=16; the "
    "fields stand in recipe.json of a run. Several times for several.",
)
@click.option("--device", default="auto", help="A torch device, or auto: the GPU if there is one.")
@click.option("--workers", type=click.IntRange(0), default=1, help="Processes that make batches.")
@click.option(
    "--checkpoint-every", type=click.IntRange(1), default=250, help="Steps; more are never lost."
)
@click.option("--validate-every", type=click.IntRange(0), default=2000, help="Steps; 0 for never.")
@click.option("--compile/--no-compile", default=False, help="Use torch.compile (for GPUs).")
def command(
    pages: Path,
    output: Path,
    name: str,
    steps: int | None,
    seed: int,
    adversarial: bool,
    initial: str | None,
    changes: tuple[str, ...],
    **options: object,
) -> None:
    """Train on prepared PAGES; checkpoint, log and TensorBoard's curves go to the folder OUTPUT.

    Run again with the same options, it goes on where it was stopped, by Ctrl-C or a crash, to the
    same weights. With several GPUs: torchrun --nproc-per-node N -m training fit ...
    """
    from training.fit import FitOptions, fit
    from training.initial import shape
    from training.pages import Pages

    recipe = RECIPES[name](len(Pages.load(pages, "train").names))
    recipe = dataclasses.replace(recipe, steps=steps or recipe.steps, seed=seed, initial=initial)
    if initial is not None and not shape(initial).norms:  # BatchNorm is folded away in there
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, norms=False))
    try:
        recipe = _chosen(recipe, adversarial, changes)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    done = fit(recipe, FitOptions(pages, output, **options))  # type: ignore[arg-type]
    if done < recipe.steps:
        click.echo(
            f"stopped after step {done} of {recipe.steps}; the same command goes on", err=True
        )
        raise click.exceptions.Exit(130)
    click.echo(output)


def _chosen(recipe: Recipe, adversarial: bool, changes: tuple[str, ...]) -> Recipe:
    if adversarial:
        loss = dataclasses.replace(recipe.loss, adversarial=_ADVERSARIAL)
        recipe = dataclasses.replace(recipe, loss=loss)
    for change in changes:
        recipe = changed(recipe, change)
    return recipe
