"""`python -m training evaluate`: measure a model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model")
@click.argument("pages", type=click.Path(path_type=Path, file_okay=False))
@click.option("--baselines", is_flag=True, help="Add a white page and the blurred binary.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the figures of every page.",
)
@click.option("--record", is_flag=True, help="Write the means into the manifest of MODEL (.onnx).")
@click.option("--int8", is_flag=True, help="Measure the INT8 form of MODEL (.onnx).")
def command(
    model: str, pages: Path, baselines: bool, json_path: Path | None, record: bool, int8: bool
) -> None:
    """Measure MODEL (a checkpoint .pt, an .onnx file or a shipped name) on prepared PAGES."""
    from sketchify_rt import models
    from training import evaluate as evaluation
    from training.metrics import mean, rounded
    from training.pages import Pages

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
