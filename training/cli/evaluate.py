"""`python -m training evaluate`: measure a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from training.errors import TrainingError
from training.evaluation import NAME, SIZES
from training.pages import SPLITS, Pages

_SHEET = "sheet.jpg"  # in the folder of a run


def _suffix(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".jpg", ".png"):
        raise click.BadParameter(f"{path} does not end in .jpg or .png")
    return path


def _load(folder: Path, split: str | None) -> Pages:
    pages = Pages.load(folder, None if split == "all" else split or "val")
    if not pages.names and split is None:
        pages = Pages.load(folder)
        click.echo(
            f"{folder} has no pages to validate on: measured on all {len(pages)}, those that a "
            "model was trained on among them",
            err=True,
        )
    if not pages.names:
        raise TrainingError(f"{folder}: no pages to measure on in split {split or 'all'}")
    return pages


@click.command(short_help="Measure a model.")
@click.argument("model")
@click.argument("pages", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--split",
    type=click.Choice([*SPLITS, "all"]),
    help="Of PAGES.  [default: val, or all where that is empty]",
)
@click.option(
    "--size",
    type=click.Choice([*SIZES, "both"]),
    default="both",
    help="Whole pages as they are, or the squares of 256 pixels of the recipe of 2017.",
)
@click.option("--baselines", is_flag=True, help="Measure a white page and the blurred binary too.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write the figures of every page, for compare.  [default for a run: its {NAME}]",
)
@click.option(
    "--sheet",
    "sheet_path",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_suffix,
    help="Draw the best, the median and the worst page, .jpg or .png."
    f"  [default for a run: its {_SHEET}]",
)
@click.option("--record", is_flag=True, help="Write the means into the manifest of MODEL (.onnx).")
@click.option("--int8", is_flag=True, help="Measure the INT8 form of MODEL (.onnx).")
@click.option(
    "--hint",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="What a model that takes a hint gets: that of each page, or none.",
)
def command(
    model: str,
    pages: Path,
    split: str | None,
    size: str,
    baselines: bool,
    json_path: Path | None,
    sheet_path: Path | None,
    record: bool,
    int8: bool,
    hint: str,
) -> None:
    """Measure MODEL on prepared PAGES.

    MODEL is a run, a checkpoint (.pt), an .onnx file or a shipped name. Intervals are of 95 %, by
    bootstrap over pages. Pages of several sources, such as books or artists, get a table each.
    """
    from sketchify_rt import models
    from sketchify_rt.metrics import mean, rounded
    from training import evaluate as measuring
    from training.compare import figures_table

    sizes = SIZES if size == "both" else tuple(each for each in SIZES if each == size)
    if record and ("native" not in sizes or hint != "auto"):
        raise click.UsageError(
            "--record keeps the figures at native size with hints; measure these as well"
        )
    # All that may be refused comes before minutes of measuring.
    found = models.load(model) if record else None
    predict = measuring.predictor(model, int8, hint == "auto")
    measured = measuring.describe(model, int8)
    loaded = _load(pages, split)
    if measured.kind == "checkpoint" and Path(model).is_dir():
        json_path = json_path or Path(model) / NAME
        sheet_path = sheet_path or Path(model) / _SHEET
    for path in (json_path, sheet_path):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"{path}: there is no such folder")

    evaluation = measuring.measure(measured, predict, loaded, sizes, baselines)
    sources = dict.fromkeys(loaded.sources)
    for source in sources if len(sources) > 1 else ():
        names = {
            name for name, of in zip(loaded.names, loaded.sources, strict=True) if of == source
        }
        click.echo(f"{source}: {len(names)}\n{figures_table(evaluation.of(names))}\n")
    click.echo(figures_table(evaluation))
    if json_path is not None:
        evaluation.write(json_path)
    if sheet_path is not None:
        picture = measuring.sheet_of(evaluation, predict, loaded)
        picture.save(sheet_path, quality=92)
    if found is not None:
        means = rounded(mean(evaluation.figures["native"].values()))
        changes: dict[str, Any] = {"int8_metrics" if int8 else "metrics": means}
        manifest = dataclasses.replace(found.manifest, **changes)
        manifest.write(found.path.with_suffix(".json"))
