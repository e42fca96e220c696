"""`sketchify-rt convert`: pictures, folders and patterns -> sketches in the output folder."""

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

_SETTLED = 2.0  # seconds that a watched file must not have changed, so as not to take a part of it

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
Names of results: the contents of a folder keep their structure; with more than one
INPUT, each folder's lie below its own name. Twins keep their own endings: a.jpg and
a.png become a.jpg.png and a.png.png. An input is never written over.

\b
Once more: the output folder keeps a journal. The same command, after an interruption or
with new files, converts what is not done yet, has changed, or was made with other options.

\b
Exit code: 0 all converted or skipped; 1 some failed, the rest converted; 2 wrong
usage, and nothing converted; 130 interrupted, what was begun is finished.
"""


@click.command(epilog=_EPILOG)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results; made where it is not there. - is standard output, for one image.",
)
@click.option(
    "--from-file",
    metavar="LIST",
    type=click.File("rb"),
    help="Take more inputs from a file, one a line or with NUL between; - is standard input.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=Options.mode,
    show_default=True,
    help="sketch paints pencil tones with the U-Net; dodge and binary are classic filters alone.",
)
@common.model
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
    "--keep-metadata",
    is_flag=True,
    help="Keep EXIF, colour profile and resolution, made true of the sketch; default: none of it.",
)
@click.option(
    "--alpha",
    type=click.Choice(ALPHAS),
    default=Encoding.alpha,
    show_default=True,
    help="white puts transparent pictures on white; keep makes the sketch as transparent.",
)
@click.option(
    "--unpack",
    is_flag=True,
    help="Make a folder of pictures from a ZIP or CBZ archive; default: an archive again.",
)
@click.option(
    "--dpi",
    type=click.IntRange(18, 2400),
    default=Work.dpi,
    show_default=True,
    help="Pixels per inch for the pages of PDF files.",
)
@common.strength
@common.binary
@common.hint
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
@common.device
@common.precision
@common.runtime
@click.option(
    "--engine",
    metavar="FILE|ray",
    help="Use this TensorRT engine, and no other; default: one from the cache. ray: convert in the "
    "actors of a Ray cluster, with --threads processors each, or one GPU.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Of the Ray cluster: auto, ray://HOST:10001 or HOST:PORT; default: RAY_ADDRESS, and else "
    "one is started on this machine.",
)
@click.option(
    "--actors",
    metavar="N",
    type=click.IntRange(min=1),
    help="On the Ray cluster; default: as many as there is room for.",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Processor threads at most, and images at a time; default: all processors, on Ray 1.",
)
@common.tile
@common.max_pixels
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
@click.option(
    "--memory",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="Memory of this machine that images in work may have together; larger ones are refused, "
    "others wait their turn; default: half of all.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Decode on the CPU in processes of their own: a file that makes one crash or hang is "
    "named, and the rest goes on. Videos are refused.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=60,
    show_default=True,
    help="For one file or page of a PDF to be decoded, with --isolate.",
)
@click.option(
    "--overwrite", is_flag=True, help="Convert everything anew and replace what is there."
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave whatever is there. With neither of the two, results that the journal knows are "
    "made once, or anew after a change, and an image whose place is taken by another file fails.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Try anew the files that were found damaged before."
)
@click.option("--no-journal", is_flag=True, help="Neither read nor write the journal.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option(
    "--report",
    "report_to",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what became of each image to a .json or .csv file.",
)
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    help="Go on and look for new and changed files every so often, until interrupted.",
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
    that are no images by their ending are left out, unless they are named one by one.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other")
    names = [*inputs, *(_names(from_file) if from_file else ())]
    if not names:
        empty = f"{from_file.name} names no input" if from_file else "give INPUT or --from-file"
        raise click.UsageError(f"nothing to convert; {empty}")
    if dry_run and (report_to or as_json or watch):
        raise click.UsageError("--dry-run only tells; leave --report, --json and --watch out")
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
            raise click.UsageError("--isolate and - are for this machine; leave --engine ray out")
    elif address or actors:
        raise click.UsageError("--address and --actors go with --engine ray")
    if cloud := next((name for name in names if "://" in name), None):
        raise click.UsageError(
            f"{cloud}: folders of a cloud are for sketchify_rt.cluster.convert_dataset, see "
            "docs/batch.md"
        )
    try:
        chosen = Options(**options)
        if hints:
            _check_hints(hints, chosen, str(output) == "-" or "-" in inputs)
        encoding = Encoding(image_format, quality, keep_metadata, alpha)
        if str(output) == "-" or "-" in inputs:
            if report_to or as_json or watch or dry_run or isolate:
                raise click.UsageError(
                    "with - there is one image and nothing to tell of it; leave --report, --json, "
                    "--watch, --dry-run and --isolate out"
                )
            _pipe(names, output, chosen, encoding)
            return
        sources = Sources(names, output)
        if not sources.exist:
            raise common.Refusal("\n".join(telling.problems(sources)))
        _spare_inputs(report_to, sources, from_file)
        if hints and sources.holds(hints / "hint.png"):
            raise click.UsageError(f"--hint {hints} is searched for inputs: keep hints elsewhere")
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
                    except SketchifyError as error:  # of a GPU or a package that is not there
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
                if look == 0 and report.waiting:  # it converted nothing, so the next is the first
                    continue
                sources = Sources(names, output)
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
    """One a line, or, where there is any NUL, with NUL between."""
    data = listing.read().removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise click.UsageError(f"{listing.name}: is UTF-16; save the list as UTF-8")
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(name) for name in names if name]


def _spare_inputs(report: Path | None, sources: Sources, listing: BinaryIO | None) -> None:
    """Raises UsageError where the report would replace what is read."""
    if report is None:
        return
    lists = [listing.name] if listing and isinstance(listing.name, str) else []
    if sources.holds(report) or any(_same(name, report) for name in lists):
        raise click.UsageError(f"--report {report} is an input; choose another file")


def _check_hints(hints: Path, options: Options, pipe: bool) -> None:
    """Raises UsageError where nothing takes a hint of a folder."""
    if pipe:
        raise click.UsageError("--hint FOLDER goes by names, and - has none: give a picture")
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
    """One image to standard output, from standard input where it is called -."""
    if len(names) != 1 or str(output) != "-":
        raise click.UsageError("- is for one image: convert - -o -, or convert FILE -o -")
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
    """End at once: threads that are still at an image would be waited for otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(INTERRUPTED)


def _wait(seconds: float) -> bool:
    """Whether that time passed, rather than being interrupted."""
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

    cv2.setNumThreads(1)  # its own threads would come on top of --threads
    return Sketchifier(options)


def _open_ray(options: Options, address: str | None, actors: int | None) -> ActorPool:
    from sketchify_rt.cluster import ActorPool

    pool = ActorPool(options, address, actors)
    _end_cleanly_on_sigterm()  # Ray has set its own handler
    return pool


def _end_cleanly_on_sigterm() -> None:
    """Let SIGTERM, as sent by `kill` and by containers, end the run as Ctrl-C does."""
    with contextlib.suppress(ValueError):  # not in the main thread: signals are another's business
        signal.signal(signal.SIGTERM, signal.default_int_handler)
