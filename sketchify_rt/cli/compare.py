"""`sketchify-rt compare`: a sheet with pictures, thresholds and sketches side by side."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketchify_rt.batch.resume import keeps
from sketchify_rt.batch.runner import explain
from sketchify_rt.cli import common, printable, telling
from sketchify_rt.errors import OptionsError
from sketchify_rt.files import probe, write
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

_output = functools.partial(common.option, group="Output")


@common.command(epilog=_EPILOG, failure=common.Refusal)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@_output(
    "-o",
    "--output",
    required=True,
    metavar="SHEET",
    type=click.Path(path_type=Path),
    help="The sheet, a .png or .html file. HTML has a slider between picture and sketch.",
)
@_output("--overwrite", is_flag=True, help="Replace the sheet if it exists.")
@_output("--skip-existing", is_flag=True, help="Do nothing if the sheet exists.")
@_output(
    "--threshold",
    metavar="LEVEL",
    type=click.IntRange(0, 254),
    default=127,
    help="Level of the fixed threshold. Brighter pixels become white.",
)
@common.model
@common.strength
@common.binary
@common.hint
@common.detail
@common.look
@common.device
@common.precision
@common.runtime
@common.tile
@common.max_pixels
@common.quiet
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
    """Show each IMAGE beside its thresholds, dodge filter and sketch, in one sheet.

    The U-Net learns the dodge filter. The sheet also shows where and by how much the sketch differs
    from it, if IMAGE has tones. The dodge filter always has line strength 1.
    """
    existing = common.existing(overwrite, skip_existing)
    _check(images, output, options["hint"])
    if options["look"] == "color":
        raise OptionsError(
            "compare does not support look color: its sheets are gray. Choose another look"
        )
    inputs = {Path(name).resolve() for name in images}
    if output.resolve() in inputs:
        raise OptionsError(f"{output} would overwrite an input file. Choose another file")
    if keeps(output, existing):
        return
    probe(output.parent)
    from sketchify_rt.compare import html, png
    from sketchify_rt.sketchifier import Sketchifier

    form = png if output.suffix.lower() == ".png" else html
    failures: list[str] = []
    with Sketchifier(**options) as sketchify:
        sketchify.prepare()
        rows = _rows(images, failures, sketchify, form.BOX, threshold)
        for first in rows:
            write(output, form.sheet(itertools.chain([first], rows), _made_by(sketchify)))
    shown = len(images) - len(failures)
    if not quiet:
        where = f"in {telling.show(output)}" if shown else "no sheet written"
        click.echo(f"compared {shown}, failed {len(failures)}, {where}")
    ctx.exit(1 if failures else 0)


def _check(images: tuple[str, ...], output: Path, hint: Any) -> None:
    """Raises errors for inputs that no sheet can be made of."""
    if len(images) > _MAX_PICTURES:
        raise click.UsageError(
            f"too many images: got {len(images)}, a sheet has at most {_MAX_PICTURES}. Make "
            "several sheets"
        )
    common.check_painted(hint, images)
    if isinstance(hint, Path):
        raise click.UsageError("--hint FOLDER is only for convert. Use --hint FILE with one IMAGE")
    if output.suffix.lower() not in (".png", ".html"):
        raise OptionsError(f"output must end in .png or .html, got {output}")
    if not any(map(os.path.lexists, images)):
        raise common.Refusal("\n".join(f"{name}: no such file" for name in images))


def _rows(images: tuple[str, ...], failures: list[str], *how: Any) -> Iterator[Figure]:
    """Yields the rows. Reports a picture that fails at once, and goes on with the next one."""
    for name in images:
        try:
            yield _row(name, *how)
        except Exception as error:
            failures.append(name)
            reason = printable(explain(error, Path(name)))
            click.echo(f"{telling.show(Path(name))}: {reason}", err=True)


def _row(name: str, sketchify: Sketchifier, box: Box, threshold: int) -> Figure:
    from sketchify_rt import inputs
    from sketchify_rt.codec import cpu as codec
    from sketchify_rt.compare import figure

    file = inputs.load(name)
    assert isinstance(file, inputs.File)  # noqa: S101 (of a path it is)
    gray = codec.decode(file, sketchify.options.max_pixels)
    del file
    # The filters as they are, which is what the U-Net learns.
    filters: Callable[..., Gray] = functools.partial(  # type: ignore[assignment]
        sketchify,
        look="exact",
        blacks=None,
        paper=None,
        levels=None,
        detail=sketchify.options.max_detail or "native",
    )
    return figure.draw(telling.show(Path(name)), gray, sketchify, box, threshold, filters)


def _made_by(sketchify: Sketchifier) -> str:
    options = sketchify.options
    model = Path(options.model).name
    told = f"Sketches by {model} in {sketchify.precision}, line strength {options.strength:g}"
    for name in "hint", "detail", "look", "blacks", "paper", "levels":
        if (value := getattr(options, name)) != getattr(Options, name):
            told += f", {name} {value}"
    return told
