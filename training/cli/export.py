"""`python -m training export`: write a checkpoint as ONNX."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Write a run as an ONNX model.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--data", required=True, help="What the training pages were, for the manifest.")
@click.option("--credit", required=True, help="The credit line that their licence asks for.")
@click.option("--licence", help="Of the weights, an SPDX expression, for the ONNX file.")
@click.option(
    "--average",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A run that began with the weights of CHECKPOINT, or they both with the same: the mean of "
    "both is written. Several times for several.",
)
def command(
    checkpoint: Path,
    output: Path,
    data: str,
    credit: str,
    licence: str | None,
    average: tuple[Path, ...],
) -> None:
    """Write CHECKPOINT, a run or its file, as OUTPUT (.onnx), its manifest (.json) beside it."""
    from training.export import export as run

    if output.suffix != ".onnx":
        raise click.BadParameter(f"{output} does not end in .onnx", param_hint="OUTPUT")
    if not output.absolute().parent.is_dir():
        raise click.BadParameter(f"{output}: there is no such folder", param_hint="OUTPUT")
    training = run(checkpoint, output, credit, data, licence, average).training
    done, steps = training["step"], training["recipe"]["steps"]
    if done < steps:
        click.echo(f"the run is not finished: step {done} of {steps}", err=True)
    click.echo(output)
