"""`sketchify-rt convert`: pictures, folders and patterns -> sketches in the output folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketchify_rt.batch.runner import Outcome, Report, run
from sketchify_rt.batch.sinks import Existing, Folder
from sketchify_rt.batch.sources import Sources
from sketchify_rt.errors import OptionsError, SketchifyError
from sketchify_rt.options import FORMATS, MODES, PRECISIONS, RUNTIMES, Encoding, Options

if TYPE_CHECKING:
    from sketchify_rt.engine import Sketchifier

_INTERRUPTED = 130

_EPILOG = """\b
Examples:
  sketchify-rt convert page.jpg -o out
  sketchify-rt convert scans/ -o out --skip-existing
  sketchify-rt convert "scans/**/*.png" -o out --format webp --quality 90
  sketchify-rt convert scans/ -o out --square 256 --mode dodge
  sketchify-rt convert -o out -- -odd-name.jpg

\b
Names of results: the contents of a folder keep their structure; with more than one
INPUT, each folder's lie below its own name. Twins keep their own endings: a.jpg and
a.png become a.jpg.png and a.png.png. An input is never written over.

\b
Exit code: 0 all converted or skipped; 1 some failed, the rest converted; 2 wrong
usage, and nothing converted; 130 interrupted, what was begun is finished.
"""


class _Refusal(click.ClickException):
    """Nothing was converted, since nothing could be."""

    exit_code = 2


@click.command(epilog=_EPILOG)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results; made where it is not there.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=Options.mode,
    show_default=True,
    help="sketch paints pencil tones with the U-Net; dodge and binary are classic filters alone.",
)
@click.option(
    "--model",
    metavar="NAME|PATH",
    default=Options.model,
    show_default=True,
    help="A shipped model (see info), or an ONNX file with its manifest beside it.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    default=Encoding.format,
    show_default=True,
    help="png and webp are lossless, webp only without --quality.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="For jpg (95 if not given) and for lossy webp.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 4),
    default=Options.strength,
    show_default=True,
    help="Line strength, for the modes sketch and dodge.",
)
@click.option(
    "--max-side",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Reduce images whose longer side is over this; default: never.",
)
@click.option(
    "--square",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Cut the middle square of a landscape, the top square of a portrait, and resize it "
    "to this side (the 2017 recipe has 256); default: keep the image whole.",
)
@click.option(
    "--device",
    metavar="auto|cpu|cuda[:N]",
    default=Options.device,
    show_default=True,
    help="Only auto falls back to another device; one asked for by name is used or refused.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=Options.precision,
    show_default=True,
    help="Arithmetic of the U-Net: auto is int8 on a CPU with VNNI if the model has that form, and "
    "else half; half is bfloat16 on a CPU that has it, FP16 on a GPU; fp32 is float32 everywhere; "
    "int8 is the model's quantized form, with OpenVINO or TensorRT.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=Options.runtime,
    show_default=True,
    help="What runs the U-Net: auto is OpenVINO on a CPU, on a GPU a TensorRT engine where there "
    "is one (see build-engine), and else torch; tensorrt builds an engine that is missing.",
)
@click.option(
    "--engine",
    metavar="FOLDER",
    help="Use this TensorRT engine, and no other; default: one from the cache.",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Processor threads at most, and images at a time; default: all processors.",
)
@click.option(
    "--tile",
    metavar="PIXELS",
    type=click.IntRange(min=256),
    default=Options.tile,
    show_default=True,
    help="Larger images go through the U-Net in tiles of at most this side; sets peak memory.",
)
@click.option(
    "--max-pixels",
    metavar="N",
    type=click.IntRange(min=1),
    default=Options.max_pixels,
    show_default=True,
    help="Refuse to decode images of more pixels than this.",
)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=Options.batch,
    show_default=True,
    help="Images that a GPU takes together; fewer where they would not fit.",
)
@click.option(
    "--device-memory",
    metavar="MIB",
    type=click.IntRange(min=512),
    help="Memory of the GPU to use at most, about; default: three quarters of what is free.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Let torch.compile fuse the U-Net on a GPU: a minute at the start, faster from there.",
)
@click.option("--overwrite", is_flag=True, help="Replace results that exist already.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave results that exist already, as after an interruption. With neither of the two, "
    "an image whose result exists counts as failed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; failures alone.")
@click.option("--debug", is_flag=True, help="Show unforeseen errors with their traceback.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: Path,
    image_format: Any,
    quality: int | None,
    overwrite: bool,
    skip_existing: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Convert pictures into sketches in the folder OUT.

    INPUT is a picture, a folder, searched with its subfolders, or a pattern such as
    "scans/**/*.png". Hidden files and files that are no images by their ending are left
    out, unless they are named one by one.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other")
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    outcomes: list[Outcome] = []
    _end_cleanly_on_sigterm()
    if quiet:
        log = logging.getLogger("sketchify_rt")
        ctx.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.ERROR)
    try:
        settings = Options(**options)
        encoding = Encoding(image_format, quality)
        sources = Sources(inputs, output)
        if not sources.exist:
            raise _Refusal("\n".join(f"{_show(p.source)}: {p.reason}" for p in sources.problems))
        sink = Folder(output, image_format, existing, sources.holds)
        with _open(settings) as engine, _progress(len(sources), quiet) as advance:
            sink.open()

            def progress(outcome: Outcome) -> None:
                advance(outcome)
                if as_json:
                    outcomes.append(outcome)

            workers = engine.backend.workers
            report = run(
                engine, sources, sink, encoding, workers=workers, progress=progress, debug=debug
            )
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from error
    except SketchifyError as error:
        raise _Refusal(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        ctx.exit(_INTERRUPTED)
    if as_json:
        click.echo(json.dumps(_document(report, sources, outcomes)))
    else:
        _tell(report, sources, quiet)
    if report.interrupted:
        ctx.exit(_INTERRUPTED)
    ctx.exit(1 if report.failed or report.not_done or sources.problems else 0)


def _open(options: Options) -> Sketchifier:
    import cv2

    from sketchify_rt.engine import Sketchifier

    cv2.setNumThreads(1)  # its own threads would come on top of --threads
    return Sketchifier(**dataclasses.asdict(options))


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[Outcome], None]]:
    """A bar on stderr, when that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda outcome: None
        return
    from tqdm import tqdm

    failed = 0

    def advance(outcome: Outcome) -> None:
        nonlocal failed
        if outcome.status == "failed":
            failed += 1
            bar.set_postfix(failed=failed, refresh=False)
        bar.update()

    with tqdm(total=total, unit=" images", dynamic_ncols=True) as bar:
        yield advance


def _end_cleanly_on_sigterm() -> None:
    """Let SIGTERM, as sent by `kill` and by containers, end the run as Ctrl-C does."""
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread, where signals are the business of another
        return


def _tell(report: Report, sources: Sources, quiet: bool) -> None:
    for source, reason in _failures(report, sources):
        click.echo(f"{_show(source)}: {reason}", err=True)
    if report.stopped:
        click.echo(f"stopped: {report.stopped}; {report.not_done} images not begun", err=True)
    if not quiet:
        failed = len(report.failed) + len(sources.problems)
        click.echo(
            f"converted {report.converted}, skipped {report.skipped}, failed {failed} "
            f"in {report.seconds:.1f} s ({report.images_per_second:.1f} images/s)"
        )


def _failures(report: Report, sources: Sources) -> list[tuple[Path, str]]:
    return [*sources.problems, *((outcome.source, outcome.reason) for outcome in report.failed)]


def _document(report: Report, sources: Sources, outcomes: list[Outcome]) -> dict[str, Any]:
    """What --json prints; `files` has every image that was begun, in the order of the input."""
    return {
        "converted": report.converted,
        "skipped": report.skipped,
        "failed": len(report.failed) + len(sources.problems),
        "not_done": report.not_done,
        "stopped": report.stopped or None,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 3),
        "failures": [
            {"source": str(source), "reason": reason}
            for source, reason in _failures(report, sources)
        ],
        "files": [
            {
                "source": str(outcome.source),
                "output": str(outcome.output) if outcome.output else None,
                "status": outcome.status,
            }
            for outcome in sorted(outcomes, key=lambda outcome: outcome.index)
        ],
    }


def _show(path: Path) -> str:
    return click.format_filename(path)
