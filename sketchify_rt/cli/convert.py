"""`sketchify-rt convert`: converts pictures, folders and patterns into sketches in a folder."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from sketchify_rt import models
from sketchify_rt.batch import budget, journal
from sketchify_rt.batch.output import Output, Settling, settings
from sketchify_rt.batch.runner import Care, Outcome, Report, run
from sketchify_rt.batch.sinks import Existing, Folder
from sketchify_rt.batch.sources import Sources
from sketchify_rt.batch.work import Work
from sketchify_rt.cli import INTERRUPTED, common, telling
from sketchify_rt.errors import OptionsError, SketchifyError
from sketchify_rt.options import ALPHAS, FORMATS, MODES, Encoding, Options

if TYPE_CHECKING:
    from sketchify_rt.batch.decoders import Decoders
    from sketchify_rt.cluster import ActorPool
    from sketchify_rt.sketchifier import Sketchifier

_SETTLED = 2.0  # seconds for which a watched file must be unchanged: else it may be incomplete

_EPILOG = """\b
Examples:
  sketchify-rt convert page.jpg -o out
  sketchify-rt convert scans/ -o out --report failed.csv
  sketchify-rt convert comics/*.cbz -o out
  sketchify-rt convert "scans/**/*.png" -o out --format webp --quality 90
  sketchify-rt convert scans/ -o out --square 256 --mode dodge
  sketchify-rt convert scans/ -o out --watch 10
  sketchify-rt convert scans/ -o out --engine ray --address auto
  find scans -name "*.png" | sketchify-rt convert --from-file - -o out
  sketchify-rt convert - -o - < page.jpg > sketch.png

\b
Names of results: folders keep their structure; with more than one INPUT, the results of
each folder are in a subfolder of its name. Files that differ only in their ending keep
it: a.jpg and a.png become a.jpg.png and a.png.png. Inputs are never overwritten.

\b
Run again: the output folder has a journal. The same command converts only what is new,
has changed, was interrupted, or was made with other options.

\b
Exit code: 0 all converted or skipped; 1 some failed, the others are converted; 2 wrong
usage, nothing is converted; 130 interrupted, images in progress are finished.
"""


@click.command(epilog=_EPILOG)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results, created if missing. - is standard output, for one image.",
)
@click.option(
    "--from-file",
    metavar="LIST",
    type=click.File("rb"),
    help="Read more inputs from a file, one per line or separated by NUL. - is standard input.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=Options.mode,
    show_default=True,
    help="sketch paints pencil tones with the U-Net. dodge and binary are classic filters.",
)
@common.model
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    default=Encoding.format,
    show_default=True,
    help="png is lossless; webp is lossless without --quality.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Quality of jpg (default: 95) and of lossy webp.",
)
@click.option(
    "--keep-metadata",
    is_flag=True,
    help="Keep EXIF, colour profile and resolution, adapted to the sketch. Default: no metadata.",
)
@click.option(
    "--alpha",
    type=click.Choice(ALPHAS),
    default=Encoding.alpha,
    show_default=True,
    help="white: put transparent pictures on white; keep: the sketch is as transparent; lines: "
    "black lines on a transparent ground. Videos are always white, and refused with lines.",
)
@click.option(
    "--unpack",
    is_flag=True,
    help="Write the pages of a ZIP or CBZ archive into a folder. Default: into an archive.",
)
@click.option(
    "--dpi",
    type=click.IntRange(18, 2400),
    default=Work.dpi,
    show_default=True,
    help="Resolution of the pages of PDF files, in pixels per inch.",
)
@common.strength
@common.binary
@common.hint
@click.option(
    "--max-side",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Reduce images whose longer side is longer than this. Default: never.",
)
@click.option(
    "--square",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Crop to a square, the middle of a landscape or the top of a portrait, and resize it "
    "to this side, 256 in the 2017 recipe. Default: the whole image.",
)
@common.detail
@common.device
@common.precision
@common.runtime
@click.option(
    "--engine",
    metavar="FILE|ray",
    help="The TensorRT engine to use. Default: one from the cache. ray: convert on a Ray "
    "cluster, in actors with --threads processors or one GPU each.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Address of the Ray cluster: auto, ray://HOST:10001 or HOST:PORT. Default: RAY_ADDRESS, "
    "or else a cluster that is started on this machine.",
)
@click.option(
    "--actors",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of actors on the Ray cluster. Default: as many as fit.",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of threads, and of images at a time. Default: all processors; 1 on Ray.",
)
@common.tile
@common.max_pixels
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=Options.batch,
    show_default=True,
    help="Number of images that a GPU takes together; fewer if they do not fit.",
)
@click.option(
    "--device-memory",
    metavar="MIB",
    type=click.IntRange(min=512),
    help="Maximum memory of the GPU, approximately. Default: three quarters of the free memory.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Use torch.compile on a GPU: takes a minute at the start, then is faster.",
)
@click.option(
    "--memory",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="Maximum memory of all images in progress on this machine. Larger images are refused, "
    "others wait. Default: half of the memory.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Decode in separate processes, on the CPU: a file that makes a decoder crash or hang is "
    "reported, and the others are converted. Videos are refused.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=60,
    show_default=True,
    help="Maximum time to decode a file or a page of a PDF, with --isolate.",
)
@click.option(
    "--overwrite", is_flag=True, help="Convert everything again, and replace existing files."
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Keep all existing files. Without --overwrite and this, results in the journal are kept, "
    "or made again after a change, and an image fails if another file has the name of its result.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Try files again that were damaged in an earlier run."
)
@click.option("--no-journal", is_flag=True, help="Do not read or write the journal.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--report",
    "report_to",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result of each image to a .json or .csv file.",
)
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    help="Look for new and changed files at this interval, until interrupted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Show only failures, without progress and summary."
)
@click.option("--debug", is_flag=True, help="Show unexpected errors with their traceback.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: Path,
    from_file: BinaryIO | None,
    image_format: Any,
    quality: int | None,
    keep_metadata: bool,
    alpha: Any,
    unpack: bool,
    dpi: int,
    address: str | None,
    actors: int | None,
    memory: int | None,
    isolate: bool,
    timeout: float,
    overwrite: bool,
    skip_existing: bool,
    retry_failed: bool,
    no_journal: bool,
    dry_run: bool,
    report_to: Path | None,
    watch: float | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Convert pictures into sketches in the folder OUT.

    INPUT is a picture, a ZIP or CBZ archive, a PDF file, a video, a folder, searched with its
    subfolders for pictures and CBZ, or a pattern such as "scans/**/*.png". Hidden files and files
    without the ending of an image are skipped, unless they are named one by one.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing cannot be used together")
    names = [*inputs, *(_names(from_file) if from_file else ())]
    if not names:
        empty = f"{from_file.name} is empty" if from_file else "give INPUT or --from-file"
        raise click.UsageError(f"nothing to convert: {empty}")
    if dry_run and (report_to or as_json or watch):
        raise click.UsageError("--dry-run cannot be used with --report, --json or --watch")
    common.check_painted(options["hint"], names)
    hints = options["hint"] if isinstance(options["hint"], Path) else None
    if hints:
        options["hint"] = Options.hint
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    _end_cleanly_on_sigterm()
    if quiet:
        log = logging.getLogger("sketchify_rt")
        ctx.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.ERROR)
    on_ray = options["engine"] == "ray"
    if on_ray:
        options["engine"] = None
        if isolate or "-" in (*inputs, str(output)):
            raise click.UsageError("--engine ray cannot be used with --isolate or -")
    elif address or actors:
        raise click.UsageError("--address and --actors need --engine ray")
    if cloud := next((name for name in names if "://" in name), None):
        raise click.UsageError(
            f"{cloud}: convert reads no URLs. For folders of a cloud use "
            "sketchify_rt.cluster.convert_dataset, see docs/batch.md"
        )
    try:
        chosen = Options(**options)
        if hints:
            _check_hints(hints, chosen, str(output) == "-" or "-" in inputs)
        encoding = Encoding(image_format, quality, keep_metadata, alpha)
        if str(output) == "-" or "-" in inputs:
            if report_to or as_json or watch or dry_run or isolate:
                raise click.UsageError(
                    "- cannot be used with --report, --json, --watch, --dry-run or --isolate"
                )
            _pipe(names, output, chosen, encoding)
            return
        sources = Sources(names, output, image_format)
        if not sources.exist:
            raise common.Refusal("\n".join(telling.problems(sources)))
        _spare_inputs(report_to, sources, from_file)
        if hints and sources.holds(hints / "hint.png"):
            raise click.UsageError(
                f"--hint {hints} is in an input folder. Move the hints elsewhere"
            )
        share = memory * budget.MIB if memory else budget.total_memory() // 2
        diary = journal.Journal(
            None if no_journal else output / journal.NAME,
            output,
            settings(chosen, encoding, dpi),
            {
                "max_pixels": chosen.max_pixels,
                "timeout": timeout if isolate else None,
                "memory": share,
            },
        )
        folder = Folder(output, image_format, existing, sources.holds)
        to = Output(folder, diary, retry_failed, Settling(_SETTLED if watch else 0))
        with contextlib.ExitStack() as stack:
            decoders = None
            if isolate:
                decoders = stack.enter_context(_decoders(chosen, encoding, timeout))
            kinds = functools.partial(
                Work,
                unpack=unpack,
                dpi=dpi,
                max_pixels=chosen.max_pixels,
                decoders=decoders,
                hints=hints,
                alpha=encoding.alpha,
            )
            if dry_run:
                telling.rehearse(kinds(sources, to), sources)
                return
            cluster = engine = None
            if on_ray:
                cluster = stack.enter_context(_open_ray(chosen, address, actors))
                most = cluster.workers
            else:
                engine = stack.enter_context(_open(chosen))
                most = engine.backend.workers
            folder.open()
            diary.open()
            stack.callback(diary.close)
            here = cluster is None or cluster.local
            budget.return_large_blocks()
            care = Care(
                budget.Budget(share, chosen.max_pixels) if memory or here else budget.Budget(),
                decoders.decode if decoders else None,
                debug,
            )
            teller = stack.enter_context(telling.Teller(report_to, as_json, quiet))
            for look in itertools.count():
                work = kinds(sources, to)
                with contextlib.closing(work), teller.progress(work) as progress:
                    workers = max(1, min(most, work.most_workers))
                    chief = cluster or engine
                    assert chief is not None  # noqa: S101 (one of them is open)
                    report = run(
                        chief, work, encoding, workers=workers, progress=progress, care=care
                    )
                    for outcome in work.unfinished():
                        report.note(outcome)
                        progress(outcome)
                if work.videos:
                    try:
                        engine = engine or stack.enter_context(_open(chosen))
                        _run_videos(engine, work, to, quality, report, teller, debug)
                    except SketchifyError as error:  # a GPU or a package is missing
                        with teller.frames() as (tell, _):
                            for index, job in work.videos:
                                failed = Outcome(index, job.source, None, "failed", str(error))
                                report.note(failed)
                                tell(failed)
                teller.tell(report, sources)
                if watch is None or report.stopped:
                    break
                if not _wait(_SETTLED if report.waiting else watch):
                    break
                diary.open()
                to.settling.look()
                if look == 0 and report.waiting:  # nothing is converted yet: the next look is first
                    continue
                sources = Sources(names, output, image_format)
                kept: Existing = "refuse" if overwrite else existing
                folder = dataclasses.replace(folder, protected=sources.holds, existing=kept)
                to = dataclasses.replace(to, folder=folder, retry=False, failed_before="skip")
            teller.sum_up()
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from error
    except SketchifyError as error:
        raise common.Refusal(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        _leave()
    ctx.exit(INTERRUPTED if teller.total.interrupted else 1 if teller.failed else 0)


def _run_videos(
    engine: Sketchifier,
    work: Work,
    to: Output,
    quality: int | None,
    report: Report,
    teller: telling.Teller,
    debug: bool,
) -> None:
    from sketchify_rt.batch.videos import run_videos

    with teller.frames() as (progress, frames):
        run_videos(
            engine,
            work.videos,
            to,
            quality,
            report,
            progress=progress,
            frames=frames,
            debug=debug,
        )


def _names(listing: BinaryIO) -> list[str]:
    """Reads names, one per line. If there is any NUL, NULs separate them."""
    data = listing.read().removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise click.UsageError(f"{listing.name}: must be UTF-8, got UTF-16")
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(name) for name in names if name]


def _spare_inputs(report: Path | None, sources: Sources, listing: BinaryIO | None) -> None:
    """Raises UsageError if the report would replace an input."""
    if report is None:
        return
    lists = [listing.name] if listing and isinstance(listing.name, str) else []
    if sources.holds(report) or any(_same(name, report) for name in lists):
        raise click.UsageError(f"--report {report} would overwrite an input. Choose another file")


def _check_hints(hints: Path, options: Options, pipe: bool) -> None:
    """Raises UsageError if a folder of hints cannot be used."""
    if pipe:
        raise click.UsageError("--hint FOLDER cannot be used with -. Use --hint FILE")
    if options.mode != "sketch":
        raise click.UsageError(f"hint needs mode sketch: got mode {options.mode}; leave hint out")
    if not models.load(options.model).manifest.takes_hint:
        raise click.UsageError(
            f"model {options.model} takes no hint: got {hints}; leave hint and pencil out, or give "
            "a model that takes one"
        )


def _same(name: str, report: Path) -> bool:
    return Path(name).exists() and report.exists() and report.samefile(name)


def _pipe(names: list[str], output: Path, options: Options, encoding: Encoding) -> None:
    """Converts one image to standard output. "-" is standard input."""
    if len(names) != 1 or str(output) != "-":
        raise click.UsageError("- is for one image. Use `convert - -o -` or `convert FILE -o -`")
    from sketchify_rt import inputs

    with _open(options) as engine:
        try:
            name = names[0]
            if sys.stdout is None or (name == "-" and sys.stdin is None):
                raise click.UsageError("standard input or output is closed")
            source = inputs.read(sys.stdin.buffer, "standard input") if name == "-" else name
            data = engine.encode(source, encoding)
        except SketchifyError as error:
            raise click.ClickException(str(error)) from error
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _leave() -> NoReturn:
    """Ends the process at once, without waiting for threads that still convert."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(INTERRUPTED)


def _wait(seconds: float) -> bool:
    """Waits. Returns False if interrupted."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return False
    return True


def _decoders(options: Options, encoding: Encoding, timeout: float) -> Decoders:
    from sketchify_rt.batch.decoders import Decoders

    return Decoders(options.thread_count, timeout, options.max_pixels, encoding=encoding)


def _open(options: Options) -> Sketchifier:
    import cv2

    from sketchify_rt.sketchifier import Sketchifier

    cv2.setNumThreads(1)  # the threads of OpenCV would run beside those of --threads
    return Sketchifier(options)


def _open_ray(options: Options, address: str | None, actors: int | None) -> ActorPool:
    from sketchify_rt.cluster import ActorPool

    pool = ActorPool(options, address, actors)
    _end_cleanly_on_sigterm()  # Ray has replaced the handler
    return pool


def _end_cleanly_on_sigterm() -> None:
    """Makes SIGTERM, from `kill` and containers, end the run as Ctrl-C does."""
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, signal.default_int_handler)
