"""`sketchify-rt build-engine`: builds and verifies a TensorRT engine for this machine."""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, get_args

import click

from sketchify_rt.cli import common, printable
from sketchify_rt.errors import OptionsError
from sketchify_rt.tensorrt.record import EnginePrecision, Recipe

if TYPE_CHECKING:
    from sketchify_rt.models import Model
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

_engine = functools.partial(common.option, group="Engine")
_build = functools.partial(common.option, group="Build")
_path = click.Path(path_type=Path, dir_okay=False)
_file = functools.partial(common.option, metavar="FILE", type=_path)


@common.command(epilog=_EPILOG)
@click.argument("model", default="lite", metavar="[NAME|PATH]")
@_engine(
    "--precision",
    type=click.Choice(get_args(EnginePrecision)),
    default=Recipe.precision,
    help="Arithmetic of the engine. int8 is built from the model's quantized form.",
)
@_engine("--dynamic", is_flag=True, help="Allow tiles of any size.")
@_engine(
    "--tile",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the tiles that images are cut into; with --dynamic the maximum. Default: 512, "
    "or more for a model with a large receptive field; 1536 with --dynamic.",
)
@_engine(
    "--batch",
    metavar="MIN OPT MAX",
    nargs=3,
    type=click.IntRange(min=1),
    help="Minimum, best and maximum number of tiles in a batch. Default: 1 16 32, with --dynamic "
    "1 1 4.",
)
@_engine(
    "--workspace",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="Maximum scratch memory of the engine. Default: that of TensorRT.",
)
@_engine(
    "--version-compatible",
    is_flag=True,
    help="The engine also runs with newer TensorRT of the same major version and its lean runtime.",
)
@_engine(
    "--hardware-compatible",
    is_flag=True,
    help="The engine also runs on other GPUs, from Ampere on. May be slower.",
)
@_build("--device", metavar="cuda[:N]", default="cuda", help="GPU to build on and for.")
@_build(
    "--opt-level",
    "optimization_level",
    metavar="LEVEL",
    type=click.IntRange(0, 5),
    default=Recipe.optimization_level,
    help="How long TensorRT looks for faster kernels.",
)
@_build(
    "--bounds",
    metavar="LARGEST MEAN",
    nargs=2,
    type=click.FloatRange(min=0),
    help="Maximum difference of its tones from the float32 model, in levels of 255: the largest "
    "of all pixels, and the mean. Default: fp32 0.1 0.01, fp16 4 0.25, int8 192 2.5.",
)
@_file(
    "--timing-cache",
    group="Build",
    help="File with the measurements of TensorRT, read and updated. Default: one in the cache.",
)
@_build("--force", is_flag=True, help="Build even if a valid engine exists.")
@_file(
    "-o",
    "--output",
    "path",
    group="Output",
    help="File for the engine, for `convert --engine`. Default: one in the cache.",
)
@common.as_json
@common.quiet
def command(model: str, device: str, as_json: bool, quiet: bool, **how: Any) -> None:
    """Build a TensorRT engine of a model for this machine, and verify it.

    NAME or PATH is a shipped model (see info), or an ONNX file with its manifest beside it.
    The engine is compared with the model in float32, and kept only if the results agree.
    """
    from sketchify_rt import models

    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise OptionsError(f'device must be "cuda" or "cuda:N", got {device!r}')
    make = {name: how.pop(name) for name in ("path", "force", "bounds", "timing_cache")}
    opened = models.load(model)
    recipe = Recipe.suited(opened.manifest, **how)
    recipe.check(opened.manifest)  # before a GPU is used
    engine = _made(opened, recipe, device, _teller(quiet), **make)
    if as_json:
        click.echo(json.dumps(engine.facts(), indent=2))
    elif not quiet:
        click.echo(printable(_summary(engine)))


def _made(
    model: Model, recipe: Recipe, device: str, tell: Callable[[str], None], **how: Any
) -> Engine:
    """Builds in a thread: TensorRT may be silent for minutes, and the time is shown meanwhile."""
    from sketchify_rt import backend

    where = backend.cuda_device(device)
    from sketchify_rt.tensorrt import engines  # imports TensorRT, after the check of the GPU

    phase, cancelled = "begins", Event()

    def note(progress: Progress) -> None:
        nonlocal phase
        phase = f"{progress.phase} {progress.step}/{progress.steps}"

    how |= {"progress": note, "cancelled": cancelled}
    start = time.monotonic()
    try:
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(engines.make, model, recipe, where, **how)
            try:
                while not wait([work], _TICK).done:
                    tell(f"building for {time.monotonic() - start:.0f} s: {phase}")
            except BaseException:
                cancelled.set()
                tell("stopping after this step")
                raise
        return work.result()
    finally:
        tell("")


def _teller(quiet: bool) -> Callable[[str], None]:
    """Returns what shows a line on stderr: in one place of a terminal, or all `_LINE` seconds."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    due = 0.0

    def tell(line: str) -> None:
        nonlocal due
        if terminal:
            click.echo(f"\r\033[K{line}", nl=False, err=True)
        elif line and time.monotonic() >= due:
            due = time.monotonic() + _LINE
            click.echo(line, err=True)

    return (lambda line: None) if quiet else tell


def _summary(engine: Engine) -> str:
    record, check = engine.record, engine.record.check
    return (
        f"{engine.path}: {len(engine.plan) / 1e6:.1f} MB, built in {record.seconds:.0f} s; on "
        f"{check.crops} crops at most {check.largest:.2f} levels of 255 from the float32 model, "
        f"{check.mean:.3f} on average; {check.megapixels_s:.0f} megapixels/s"
    )
