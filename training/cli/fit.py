"""`python -m training fit`: train a U-Net."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from training.fit import FitOptions
from training.recipe import UNetConfig

_FIT = {field.name: field.default for field in dataclasses.fields(FitOptions)}


@click.command()
@click.argument("pages", type=click.Path(path_type=Path, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--steps", type=click.IntRange(1), required=True, help="Optimizer steps in all.")
@click.option("--batch", type=click.IntRange(1), default=_FIT["batch"], help="Crops per step.")
@click.option("--seed", type=int, default=_FIT["seed"])
@click.option("--device", default=_FIT["device"], help="A torch device.")
@click.option("--compile/--no-compile", default=_FIT["compile"], help="Use torch.compile.")
@click.option("--checkpoint-every", type=click.IntRange(1), default=_FIT["checkpoint_every"])
@click.option("--width", type=click.IntRange(1), default=UNetConfig.width)
@click.option("--depth", type=click.IntRange(1), default=UNetConfig.depth)
@click.option("--unshuffle", type=click.IntRange(1), default=UNetConfig.unshuffle)
def command(
    pages: Path, output: Path, width: int, depth: int, unshuffle: int, **options: object
) -> None:
    """Train on prepared PAGES; the checkpoint and the log go to OUTPUT.

    Run again with the same options, it goes on where it was stopped.
    """
    from training.fit import fit as run

    config = UNetConfig(width, depth, unshuffle)
    click.echo(run(config, FitOptions(pages, output, **options)))  # type: ignore[arg-type]
