"""`python -m training quantize`: make the INT8 form of a model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Make the INT8 form of a model.")
@click.argument("model")
@click.argument("pages", type=click.Path(path_type=Path, file_okay=False))
@click.option("--crops", type=click.IntRange(1), default=300, help="Crops to calibrate on.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Chooses the crops.")
def command(model: str, pages: Path, crops: int, seed: int) -> None:
    """Write the INT8 form of MODEL (.onnx) beside it, calibrated on the training split of PAGES."""
    from sketchify_rt import models
    from training.pages import Pages
    from training.quantize import quantize as run

    click.echo(run(models.load(model), Pages.load(pages, "train"), crops, seed).file("int8"))
