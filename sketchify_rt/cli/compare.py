"""`sketchify-rt compare`: a sheet with pictures, thresholds and sketches side by side."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketchify_rt.batch.runner import explain
from sketchify_rt.batch.sinks import Folder, write
from sketchify_rt.cli import common, telling
from sketchify_rt.errors import OptionsError, SketchifyError
from sketchify_rt.options import Options

if TYPE_CHECKING:
    from sketchify_rt.compare.figure import Box, Figure
    from sketchify_rt.image import Gray
    from sketchify_rt.sketchifier import Sketchifier

_MAX_PICTURES = 32  # in one sheet: an HTML page of 32 pictures has about 50 MB

_EPILOG = """\b
Examples:
  sketchify-rt compare page.jpg -o sheet.png
  sketchify-rt compare scans/*.png -o sheet.html     # with a slider, one file, works offline
  sketchify-rt compare page.jpg -o sheet.png --model my.onnx --strength 1.6

\b
Exit code: 0 all are in the sheet; 1 some failed, the rest is in the sheet; 2 wrong usage,
and no sheet; 130 interrupted, and no sheet.
"""


@click.command(epilog=_EPILOG)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="SHEET",
    type=click.Path(path_type=Path),
    help="The sheet, .png or .html. HTML has a slider between picture and sketch.",
)
@common.model
@common.strength
@common.binary
@common.hint
@common.detail
@common.look
@click.option(
    "--threshold",
    metavar="LEVEL",
    type=click.IntRange(0, 254),
    default=127,
    show_default=True,
    help="The fixed threshold. Brighter pixels become white.",
)
@common.device
@common.precision
@common.runtime
@common.tile
@common.max_pixels
@click.option("--overwrite", is_flag=True, help="Replace an existing sheet.")
@click.option("--skip-existing", is_flag=True, help="Do nothing if the sheet exists.")
@click.option("-q", "--quiet", is_flag=True, help="Show only failures, without a summary.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    output: Path,
    threshold: int,
    overwrite: bool,
    skip_existing: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show pictures beside global thresholds, the adaptive one, the dodge filter and the sketch.

    The sheet has a row for each IMAGE, with the figures of the sketch against the dodge filter,
    which the U-Net learns, and a map of where they differ. The dodge filter has line strength 1. A
    picture that is black and white has no tones to compare with, and no figures.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing cannot be used together")
    if len(images) > _MAX_PICTURES:
        raise click.UsageError(
            f"too many images: got {len(images)}, a sheet has at most "
            f"{_MAX_PICTURES}. Make several sheets"
        )
    common.check_painted(options["hint"], images)
    if isinstance(options["hint"], Path):
        raise click.UsageError("--hint FOLDER is only for convert. Use --hint FILE with one IMAGE")
    failures: list[str] = []
    try:
        _check_ending(output)
        if not any(map(os.path.lexists, images)):
            raise common.Refusal("\n".join(f"{name}: no such file" for name in images))
        inputs = {Path(name).resolve() for name in images}
        folder = Folder(
            output.parent,
            "png",
            "overwrite" if overwrite else "skip" if skip_existing else "refuse",
            lambda path: path.resolve() in inputs,
        )
        if folder.skips(folder.place(output.name)):
            return
        folder.open()
        from sketchify_rt.compare import html, png
        from sketchify_rt.sketchifier import Sketchifier

        form = png if output.suffix.lower() == ".png" else html
        with Sketchifier(**options) as sketchify:
            sketchify.prepare()
            draw = _drawer(sketchify, form.BOX, threshold)
            rows = _each(images, draw, failures)
            first = next(rows, None)
            if first is not None:
                write(output, form.sheet(itertools.chain([first], rows), _made_by(sketchify)))
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from error
    except SketchifyError as error:
        raise common.Refusal(str(error)) from error
    shown = len(images) - len(failures)
    if not quiet:
        where = f"in {telling.show(output)}" if shown else "no sheet written"
        click.echo(f"compared {shown}, failed {len(failures)}, {where}")
    ctx.exit(1 if failures else 0)


def _check_ending(output: Path) -> None:
    if output.suffix.lower() not in (".png", ".html"):
        raise OptionsError(f"output must end in .png or .html, got {output}")


def _each(
    images: tuple[str, ...], draw: Callable[[str], Figure], failures: list[str]
) -> Iterator[Figure]:
    """Yields the rows. Reports a picture that fails at once, and goes on with the next one."""
    for name in images:
        try:
            yield draw(name)
        except Exception as error:
            failures.append(name)
            click.echo(f"{telling.show(Path(name))}: {explain(error, Path(name))}", err=True)


def _drawer(sketchify: Sketchifier, box: Box, threshold: int) -> Callable[[str], Figure]:
    from sketchify_rt import inputs
    from sketchify_rt.codec import cpu as codec
    from sketchify_rt.compare import figure

    # The filters as they are, which is what the U-Net learns.
    filters: Callable[..., Gray] = functools.partial(  # type: ignore[assignment]
        sketchify,
        look="exact",
        blacks=None,
        paper=None,
        levels=None,
        detail=sketchify.options.max_detail or "native",
    )

    def draw(name: str) -> Figure:
        file = inputs.load(name)
        assert isinstance(file, inputs.File)  # noqa: S101 (of a path it is)
        gray = codec.decode(file, sketchify.options.max_pixels)
        del file
        return figure.draw(telling.show(Path(name)), gray, sketchify, box, threshold, filters)

    return draw


def _made_by(sketchify: Sketchifier) -> str:
    options = sketchify.options
    model = Path(options.model).name
    told = f"Sketches by {model} in {sketchify.precision}, line strength {options.strength:g}"
    for name in "hint", "detail", "look", "blacks", "paper", "levels":
        if (value := getattr(options, name)) != getattr(Options, name):
            told += f", {name} {value}"
    return told
