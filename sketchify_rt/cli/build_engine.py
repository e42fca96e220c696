"""`sketchify-rt build-engine`: builds and verifies a TensorRT engine for this machine."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, get_args

import click

from sketchify_rt.cli import INTERRUPTED
from sketchify_rt.errors import OptionsError, SketchifyError
from sketchify_rt.tensorrt.record import EnginePrecision, Recipe

if TYPE_CHECKING:
    from sketchify_rt.tensorrt.build import Progress
    from sketchify_rt.tensorrt.cache import Engine

_TICK = 0.5  # seconds between two updates of the line, on a terminal
_LINE = 30  # seconds between two lines, elsewhere

_EPILOG = """\b
Examples:
  sketchify-rt build-engine                               # lite, FP16, into the cache
  sketchify-rt build-engine my.onnx --tile 768 --batch 1 8 16
  sketchify-rt build-engine --output lite.engine --version-compatible
  sketchify-rt build-engine --dynamic                     # any size up to 1536, fewer tiles

\b
convert uses the engine automatically; `sketchify-rt engines` lists the engines.
Exit code: 0 the engine exists and is verified; 1 the build or the verification failed, and
existing engines are unchanged; 2 wrong usage; 130 interrupted.
"""


@click.command(epilog=_EPILOG)
@click.argument("model", default="lite", metavar="[NAME|PATH]")
@click.option(
    "--precision",
    type=click.Choice(get_args(EnginePrecision)),
    default=Recipe.precision,
    show_default=True,
    help="int8 is built from the model's quantized form.",
)
@click.option(
    "--tile",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the tiles that images are cut into; with --dynamic the maximum. Default: 512, "
    "or more for a model with a large receptive field; 1536 with --dynamic.",
)
@click.option(
    "--batch",
    metavar="MIN OPT MAX",
    nargs=3,
    type=click.IntRange(min=1),
    help="Minimum, best and maximum number of tiles in a batch. Default: 1 16 32; dynamic 1 1 4.",
)
@click.option("--dynamic", is_flag=True, help="Allow tiles of any size.")
@click.option(
    "--opt-level",
    type=click.IntRange(0, 5),
    default=Recipe.optimization_level,
    show_default=True,
    help="How long TensorRT looks for faster kernels.",
)
@click.option(
    "--workspace",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="Maximum scratch memory of the engine. Default: that of TensorRT.",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="The engine also runs with newer TensorRT of the same major version and its lean runtime.",
)
@click.option(
    "--hardware-compatible",
    is_flag=True,
    help="The engine also runs on other GPUs, from Ampere on. May be slower.",
)
@click.option(
    "--timing-cache",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the measurements of TensorRT, read and updated. Default: one in the cache.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the engine, for `convert --engine`. Default: one in the cache.",
)
@click.option(
    "--bounds",
    metavar="LARGEST MEAN",
    nargs=2,
    type=click.FloatRange(min=0),
    help="Maximum difference of its tones from the float32 model, in levels of 255. Default: "
    "fp32 0.1 0.01, fp16 4 0.25, int8 192 2.5.",
)
@click.option("--device", metavar="cuda[:N]", default="cuda", show_default=True)
@click.option("--force", is_flag=True, help="Build even if a valid engine exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the record of the engine to stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    dynamic: bool,
    tile: int | None,
    batch: tuple[int, int, int] | None,
    opt_level: int,
    timing_cache: Path | None,
    output: Path | None,
    bounds: tuple[float, float] | None,
    device: str,
    force: bool,
    as_json: bool,
    quiet: bool,
    **recipe: Any,
) -> None:
    """Build a TensorRT engine of a model for this machine, and verify it.

    NAME or PATH is a shipped model (see info), or an ONNX file with its manifest beside it.
    The engine is compared with the model in float32, and kept only if the results agree.
    """
    try:
        if not re.fullmatch(r"cuda(:\d+)?", device):
            raise OptionsError(f'device must be "cuda" or "cuda:N", got {device!r}')
        asked = _recipe(model, dynamic, tile, batch, optimization_level=opt_level, **recipe)
        with _told(quiet) as tell:
            engine = _made(
                model,
                asked,
                device,
                tell,
                path=output,
                force=force,
                bounds=bounds,
                timing_cache=timing_cache,
            )
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from error
    except SketchifyError as error:
        raise click.ClickException(str(error)) from error
    except (KeyboardInterrupt, CancelledError):
        click.echo("interrupted", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps(_document(engine), indent=2))
    elif not quiet:
        click.echo(_summary(engine))


def _recipe(
    model: str, dynamic: bool, tile: int | None, batch: tuple[int, int, int] | None, **rest: Any
) -> Recipe:
    """Makes the recipe, and checks it before a GPU is used."""
    from sketchify_rt import models, tiling

    opened = models.load(model)
    manifest = opened.manifest
    if dynamic:
        stride = manifest.stride
        side = tile or 1536  # `Options.tile`: what a CPU takes in one piece
        # Pages are mostly shorter than the longest tile.
        sides = (stride, max(stride, side * 2 // 3 // stride * stride), side)
        recipe = Recipe(tile=sides, batch=batch or (1, 1, 4), **rest)
    else:
        side = tile or tiling.static_side(manifest.halo, manifest.stride)
        recipe = Recipe(tile=(side, side, side), batch=batch or Recipe.batch, **rest)
    recipe.check(manifest)
    opened.read("int8" if recipe.precision == "int8" else "float")
    return recipe


def _made(
    model: str,
    recipe: Recipe,
    device: str,
    tell: Callable[[str], None],
    **how: Any,
) -> Engine:
    """Builds in a thread: TensorRT may be silent for minutes, and the time is shown meanwhile."""
    from sketchify_rt import backend, models

    opened, where = models.load(model), backend.cuda_device(device)
    from sketchify_rt.tensorrt import engines  # imports TensorRT, after the check of the GPU

    phase, cancelled = "begins", Event()

    def note(progress: Progress) -> None:
        nonlocal phase
        phase = f"{progress.phase} {progress.step}/{progress.steps}"

    start = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            engines.make, opened, recipe, where, progress=note, cancelled=cancelled, **how
        )
        try:
            while not wait([work], _TICK).done:
                tell(f"building for {time.monotonic() - start:.0f} s: {phase}")
        except BaseException:
            cancelled.set()
            tell("stopping after this step")
            raise
    return work.result()


@contextmanager
def _told(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows a line on stderr: replaces it on a terminal, repeats it every `_LINE` s elsewhere."""
    if quiet or sys.stderr is None:
        yield lambda line: None
    elif sys.stderr.isatty():
        yield lambda line: click.echo(f"\r\033[K{line}", nl=False, err=True)
        click.echo("\r\033[K", nl=False, err=True)
    else:
        next_line = 0.0

        def tell(line: str) -> None:
            nonlocal next_line
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _LINE
                click.echo(line, err=True)

        yield tell


def _document(engine: Engine) -> dict[str, Any]:
    record = dataclasses.asdict(engine.record)
    return {"path": str(engine.path), "plan_bytes": len(engine.plan), **record}


def _summary(engine: Engine) -> str:
    record, check = engine.record, engine.record.check
    return (
        f"{engine.path}: {len(engine.plan) / 1e6:.1f} MB, built in {record.seconds:.0f} s; on "
        f"{check.crops} crops at most {check.largest:.2f} levels of 255 from the float32 model, "
        f"{check.mean:.3f} on average; {check.megapixels_s:.0f} megapixels/s"
    )
