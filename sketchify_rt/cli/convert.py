"""`sketchify-rt convert`: converts pictures, folders and patterns into sketches in a folder."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from sketchify_rt import files
from sketchify_rt.batch import api
from sketchify_rt.batch.api import FolderJob, JobSettings
from sketchify_rt.batch.resume import keeps
from sketchify_rt.cli import INTERRUPTED, common, telling
from sketchify_rt.errors import SketchifyError
from sketchify_rt.options import ALPHAS, FORMATS, MODES, Encoding, Options, encoding_of

if TYPE_CHECKING:
    from sketchify_rt.cluster import ActorPool

_COMMON = ("look", "strength", "detail", "device")  # shared options that most people need
_OPTIONS = {field.name for field in dataclasses.fields(Options)}

_EPILOG = """\b
Examples:
  sketchify-rt page.jpg
  sketchify-rt page.jpg -o sketch.png
  sketchify-rt convert scans/ -o out --report failed.csv
  sketchify-rt convert comics/*.cbz -o out
  sketchify-rt convert "scans/**/*.png" -o out --format webp --quality 90
  sketchify-rt convert scans/ -o out --square 256 --mode dodge
  sketchify-rt convert scans/ -o out --watch 10
  sketchify-rt convert scans/ -o out --ray --ray-address auto
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


_common = functools.partial(common.option, group="Common")
_input = functools.partial(common.option, group="Input")
_output = functools.partial(common.option, group="Output")
_size = functools.partial(common.option, group="Size")
_again = functools.partial(common.option, group="Run again")
_safety = functools.partial(common.option, group="Memory and safety")
_gpu = functools.partial(common.option, group="GPU")
_ray = functools.partial(common.option, group="Ray cluster")
_messages = functools.partial(common.option, group="Messages")


@common.command(epilog=_EPILOG, failure=common.Refusal)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@_common(
    "-o",
    "--output",
    default="sketches",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Folder for the results, created if missing. For one picture: a file that ends in .png, "
    ".jpg or .webp, or - for standard output.",
)
@_common(
    "--mode",
    type=click.Choice(MODES),
    default=Options.mode,
    help="sketch: pencil tones by the U-Net; dodge, binary: classic filters.",
)
@_common(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    help="png is lossless; webp is lossless without --quality. Default: png, or the ending of OUT.",
)
@_common(
    "--quality",
    type=click.IntRange(1, 100),
    help="Quality of jpg (default: 95) and of lossy webp.",
)
@_common("--overwrite", is_flag=True, help="Convert all again, and replace existing files.")
@_common("--dry-run", is_flag=True, help="Only show what would be done.")
@common.model
@common.strength
@common.binary
@common.hint
@common.look
@_input(
    "--from-file",
    metavar="LIST",
    type=click.File("rb"),
    help="Read more inputs from a file, one per line or separated by NUL. - is standard input.",
)
@_input(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    help="Look for new and changed files at this interval, until interrupted.",
)
@_input(
    "--dpi",
    type=click.IntRange(18, 2400),
    default=FolderJob.dpi,
    help="Resolution of the pages of PDF files, in pixels per inch.",
)
@_output(
    "--keep-metadata",
    is_flag=True,
    help="Keep EXIF, colour profile and resolution, adapted to the sketch. Default: no metadata.",
)
@_output(
    "--alpha",
    type=click.Choice(ALPHAS),
    default=Encoding.alpha,
    help="white: put transparent pictures on white; keep: the sketch is as transparent; lines: "
    "black lines on a transparent ground. Videos are always white, and refused with lines.",
)
@_output(
    "--unpack",
    is_flag=True,
    help="Write the pages of a ZIP or CBZ archive into a folder. Default: into an archive.",
)
@_size(
    "--max-side",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Reduce images whose longer side is longer than this. Default: never.",
)
@_size(
    "--square",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Crop to a square, the middle of a landscape or the top of a portrait, and resize it "
    "to this side, 256 in the 2017 recipe. Default: the whole image.",
)
@common.detail
@_again(
    "--skip-existing",
    is_flag=True,
    help="Keep all existing files. Without --overwrite and this, results in the journal are kept, "
    "or made again after a change, and an image fails if another file has the name of its result.",
)
@_again("--retry-failed", is_flag=True, help="Try files again that were damaged in an earlier run.")
@_again("--no-journal", is_flag=True, help="Do not read or write the journal.")
@_safety(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of threads, and of images at a time. Default: all processors; 1 on Ray.",
)
@_safety(
    "--memory",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="Maximum memory of all images in progress on this machine. Larger images are refused, "
    "others wait. Default: half of the memory.",
)
@common.tile
@common.max_pixels
@_safety(
    "--isolate",
    is_flag=True,
    help="Decode in separate processes, on the CPU: a file that makes a decoder crash or hang is "
    "reported, and the others are converted. Videos are refused.",
)
@_safety(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=FolderJob.timeout,
    help="Maximum time to decode a file or a page of a PDF, with --isolate.",
)
@common.device
@common.precision
@common.runtime
@_gpu(
    "--engine",
    metavar="FILE",
    help="The TensorRT engine to use. Default: one from the cache.",
)
@_gpu(
    "--batch",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=Options.batch,
    help="Number of images that a GPU takes together; fewer if they do not fit.",
)
@_gpu(
    "--device-memory",
    metavar="MIB",
    type=click.IntRange(min=512),
    help="Maximum memory of the GPU, approximately. Default: three quarters of the free memory.",
)
@_gpu(
    "--compile",
    is_flag=True,
    help="Use torch.compile on a GPU: takes a minute at the start, then is faster.",
)
@_ray(
    "--ray",
    is_flag=True,
    help="Convert on a Ray cluster, in actors with --threads processors or one GPU each.",
)
@_ray(
    "--ray-address",
    metavar="ADDRESS",
    help="Address of the Ray cluster: auto, ray://HOST:10001 or HOST:PORT. Default: RAY_ADDRESS, "
    "or else a cluster that is started on this machine.",
)
@_ray(
    "--ray-actors",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of actors on the Ray cluster. Default: as many as fit.",
)
@_messages(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result of each image to a .json or .csv file.",
)
@common.as_json
@common.quiet
@_messages("--debug", is_flag=True, help="Show unexpected errors with their traceback.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: Path,
    from_file: BinaryIO | None,
    dry_run: bool,
    watch: float | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Convert pictures into sketches in the folder OUT.

    INPUT is a picture, a ZIP or CBZ archive, a PDF file, a video, a folder, searched with its
    subfolders for pictures and CBZ, or a pattern such as "scans/**/*.png". Hidden files and files
    without the ending of an image are skipped, unless they are named one by one.
    """
    names = _names(inputs, from_file)
    common.check_painted(given["hint"], names)
    _end_cleanly_on_sigterm()
    if quiet:
        log = logging.getLogger("sketchify_rt")
        ctx.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.ERROR)
    alone = _is_alone(names, output)
    options, encoding, settings = _chosen(output if alone else None, given)
    unfit = dry_run or as_json or watch or settings["report"]
    try:
        if alone:
            if unfit or settings["isolate"]:
                raise click.UsageError(
                    f"-o {output} is for one picture, and cannot be used with --report, --json, "
                    "--watch, --dry-run or --isolate"
                )
            _convert_one(names[0], output, options, encoding, settings)
            return
        if dry_run and (settings["report"] or as_json or watch):
            raise click.UsageError("--dry-run cannot be used with --report, --json or --watch")
        _spare_list(given["report"], from_file)
        teller = telling.Teller(output, as_json, quiet)
        settings |= {"watch": watch is not None, "on_event": teller.event}
        with FolderJob(names, output, options, encoding, **settings) as job, teller:
            if dry_run:
                ctx.exit(telling.rehearse(job))
            _run(job, teller, watch)
        teller.sum_up(job)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        _leave()
    ctx.exit(teller.status)


for _option in command.params:
    if isinstance(_option, common.Option) and _option.name in _COMMON:
        _option.group = "Common"


def _chosen(file: Path | None, given: dict[str, Any]) -> tuple[Options, Encoding, JobSettings]:
    """Sorts what the command line gives. Raises OptionsError and UsageError.

    Args:
        file: The result, if there is only one.
        given: Options of the command line, by name.
    """
    hints = given["hint"] if isinstance(given["hint"], Path) else None
    if hints:
        given["hint"] = Options.hint
        if file:
            raise click.UsageError("--hint FOLDER cannot be used for one picture. Use --hint FILE")
    options = Options(**{name: value for name, value in given.items() if name in _OPTIONS})
    form = given["image_format"]
    if file and str(file) != "-":
        if form and form != encoding_of(file).format:
            raise click.UsageError(f"--format {form} and the ending of -o {file} differ")
        form = encoding_of(file).format
    encoding = Encoding(form or "png", given["quality"], given["keep_metadata"], given["alpha"])
    settings = JobSettings(
        existing=common.existing(given["overwrite"], given["skip_existing"]),
        resume=not given["no_journal"],
        hints=hints,
        cluster=_cluster(options, given, file is not None),
        retry_failed=given["retry_failed"],
        memory=given["memory"],
        isolate=given["isolate"],
        timeout=given["timeout"],
        unpack=given["unpack"],
        dpi=given["dpi"],
        report=given["report"],
        debug=given["debug"],
    )
    return options, encoding, settings


def _cluster(
    options: Options, given: dict[str, Any], alone: bool
) -> functools.partial[ActorPool] | None:
    """Returns what opens the Ray cluster, or None. Raises UsageError."""
    address, actors = given["ray_address"], given["ray_actors"]
    if not given["ray"]:
        if address or actors:
            raise click.UsageError("--ray-address and --ray-actors need --ray")
        return None
    if given["isolate"] or alone:
        raise click.UsageError("--ray cannot be used with --isolate, or for one picture")
    return functools.partial(_open_ray, options, address, actors)


def _run(job: FolderJob, teller: telling.Teller, watch: float | None) -> None:
    """Runs the job once, or again and again."""
    while True:
        report = job.run()
        teller.tell(report)
        if watch is None or report.stopped:
            return
        if not _wait(api.SETTLED if report.waiting else watch):
            return


def _wait(seconds: float) -> bool:
    """Waits. Returns False if interrupted."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return False
    return True


def _names(inputs: tuple[str, ...], listing: BinaryIO | None) -> list[str]:
    """Adds the names of --from-file, one per line. If there is any NUL, NULs separate them."""
    names = [*inputs]
    if listing:
        data = listing.read().removeprefix(codecs.BOM_UTF8)
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise click.UsageError(f"{listing.name}: must be UTF-8, got UTF-16")
        lines = data.split(b"\0") if b"\0" in data else data.splitlines()
        names += [os.fsdecode(name) for name in lines if name]
    if not names:
        empty = f"{listing.name} is empty" if listing else "give INPUT or --from-file"
        raise click.UsageError(f"nothing to convert: {empty}")
    return names


def _spare_list(report: Path | None, listing: BinaryIO | None) -> None:
    """Raises UsageError if the report would replace the list of --from-file."""
    name = getattr(listing, "name", None)
    if report and isinstance(name, str) and _are_same(report, Path(name)):
        raise click.UsageError(f"--report {report} would overwrite an input. Choose another file")


def _are_same(first: Path, second: Path) -> bool:
    # Unlike those of Path, these never raise.
    return os.path.exists(first) and os.path.exists(second) and first.samefile(second)  # noqa: PTH110


def _is_alone(names: list[str], output: Path) -> bool:
    """Whether there is one picture, whose result is a file or standard output.

    Raises:
        click.UsageError: There are more.
    """
    is_folder = os.path.isdir(output)  # noqa: PTH112 (which may raise)
    as_file = output.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and not is_folder
    if not as_file and str(output) != "-" and "-" not in names:
        return False
    if str(output) != "-" and not as_file:
        raise click.UsageError("INPUT - is for one picture. Use `convert - -o FILE` or `-o -`")
    if len(names) != 1 or os.path.isdir(names[0]):  # noqa: PTH112
        raise click.UsageError(f"-o {output} is for one picture. Give a folder for several")
    return True


def _convert_one(
    name: str, output: Path, options: Options, encoding: Encoding, settings: JobSettings
) -> None:
    """Converts one picture. "-" is standard input or output."""
    from sketchify_rt import inputs

    pipe = str(output) == "-"
    if name == "-" and sys.stdin is None:
        raise click.UsageError("standard input is closed")
    if not pipe:
        if _are_same(Path(name), output):
            raise click.UsageError(f"{output}: would overwrite an input file. Choose another file")
        if keeps(output, settings["existing"]):
            return
    with api.open_sketchifier(options) as sketchify:
        try:
            source = inputs.read(sys.stdin.buffer, "standard input") if name == "-" else name
            data = sketchify.encode(source, encoding)
            if not pipe:
                files.write(output, data)
        except SketchifyError as error:
            raise click.ClickException(str(error)) from error
    if pipe:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _leave() -> NoReturn:
    """Ends the process at once, without waiting for threads that still convert."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(INTERRUPTED)


def _open_ray(options: Options, address: str | None, actors: int | None) -> ActorPool:
    from sketchify_rt.cluster import ActorPool

    pool = ActorPool(options, address, actors)
    _end_cleanly_on_sigterm()  # Ray has replaced the handler
    return pool


def _end_cleanly_on_sigterm() -> None:
    """Makes SIGTERM, from `kill` and containers, end the run as Ctrl-C does."""
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, signal.default_int_handler)
