"""Command line of the training package."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from training.fit import FitOptions
from training.model import UNetConfig

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
_FIT = {field.name: field.default for field in dataclasses.fields(FitOptions)}


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Make a model: prepare the pages, fit, export, evaluate, quantize."""


@main.command()
@click.argument("source", type=FOLDER)
@click.argument("output", type=FOLDER)
def prepare(source: Path, output: Path) -> None:
    """Pack the pages of the folder SOURCE into the folder OUTPUT, decoded to luma."""
    from training.prepare import prepare as run

    click.echo(f"{run(source, output)} pages in {output}")


@main.command()
@click.argument("pages", type=FOLDER)
@click.argument("output", type=FOLDER)
@click.option("--steps", type=click.IntRange(1), required=True, help="Optimizer steps in all.")
@click.option("--batch", type=click.IntRange(1), default=_FIT["batch"], help="Crops per step.")
@click.option("--seed", type=int, default=_FIT["seed"])
@click.option("--device", default=_FIT["device"], help="A torch device.")
@click.option("--compile/--no-compile", default=_FIT["compile"], help="Use torch.compile.")
@click.option("--checkpoint-every", type=click.IntRange(1), default=_FIT["checkpoint_every"])
@click.option("--width", type=click.IntRange(1), default=UNetConfig.width)
@click.option("--depth", type=click.IntRange(1), default=UNetConfig.depth)
@click.option("--unshuffle", type=click.IntRange(1), default=UNetConfig.unshuffle)
def fit(
    pages: Path, output: Path, width: int, depth: int, unshuffle: int, **options: object
) -> None:
    """Train on prepared PAGES; the checkpoint and the log go to OUTPUT.

    Run again with the same options, it goes on where it was stopped.
    """
    from training.fit import fit as run

    config = UNetConfig(width, depth, unshuffle)
    click.echo(run(config, FitOptions(pages, output, **options)))  # type: ignore[arg-type]


@main.command()
@click.argument("model")
@click.argument("pages", type=FOLDER)
@click.option("--baselines", is_flag=True, help="Add a white page and the blurred binary.")
@click.option("--json", "json_path", type=FILE, help="Write the figures of every page.")
@click.option("--record", is_flag=True, help="Write the means into the manifest of MODEL (.onnx).")
@click.option("--int8", is_flag=True, help="Measure the INT8 form of MODEL (.onnx).")
def evaluate(
    model: str, pages: Path, baselines: bool, json_path: Path | None, record: bool, int8: bool
) -> None:
    """Measure MODEL (a checkpoint .pt, an .onnx file or a shipped name) on prepared PAGES."""
    from sketchify_rt import models
    from training import evaluate as evaluation
    from training.data import Pages
    from training.metrics import mean, rounded

    found = models.load(model) if record else None  # before minutes of measuring
    loaded = Pages.load(pages)
    predictors = {model: evaluation.predictor(model, "int8" if int8 else "fp32")}
    if baselines:
        predictors |= {"white": evaluation.white, "blurred": evaluation.blurred_binary}
    figures = {name: evaluation.evaluate(run, loaded) for name, run in predictors.items()}
    for name, rows in figures.items():
        click.echo(f"{name}: " + "  ".join(f"{k} {v:.4g}" for k, v in rounded(mean(rows)).items()))
    if json_path is not None:
        table = {
            name: dict(zip(loaded.names, map(rounded, rows), strict=True))
            for name, rows in figures.items()
        }
        json_path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if found is not None:
        means: dict[str, Any] = {
            "int8_metrics" if int8 else "metrics": rounded(mean(figures[model]))
        }
        manifest = dataclasses.replace(found.manifest, **means)
        manifest.write(found.path.with_suffix(".json"))


@main.command()
@click.argument("checkpoint", type=FILE)
@click.argument("output", type=FILE)
@click.option("--data", required=True, help="What the training pages were, for the manifest.")
@click.option("--credit", required=True, help="The credit line that their licence asks for.")
def export(checkpoint: Path, output: Path, data: str, credit: str) -> None:
    """Write CHECKPOINT as OUTPUT (.onnx) with its manifest (.json) beside it."""
    from training.export import export as run

    if output.suffix != ".onnx":
        raise click.BadParameter(f"{output} does not end in .onnx", param_hint="OUTPUT")
    run(checkpoint, output, credit=credit, data=data)
    click.echo(output)


@main.command()
@click.argument("model")
@click.argument("pages", type=FOLDER)
@click.option("--crops", type=click.IntRange(1), default=300, help="Crops to calibrate on.")
@click.option("--seed", type=int, default=0, help="Chooses the crops.")
def quantize(model: str, pages: Path, crops: int, seed: int) -> None:
    """Write the INT8 form of MODEL (.onnx) beside it, calibrated on prepared PAGES."""
    from sketchify_rt import models
    from training.data import Pages
    from training.quantize import quantize as run

    click.echo(run(models.load(model), Pages.load(pages), crops, seed).file("int8"))


if __name__ == "__main__":
    main(prog_name="python -m training")
