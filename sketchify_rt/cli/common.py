"""What several commands share: options, each a decorator, their headings, and errors."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sketchify_rt.errors import OptionsError, SketchifyError
from sketchify_rt.options import (
    AUTO_DETAIL,
    BLACKS,
    LEVELS,
    LOOKS,
    PENCILS,
    PRECISIONS,
    RUNTIMES,
    Binary,
    Hint,
    Options,
    Painted,
)

if TYPE_CHECKING:
    from sketchify_rt.batch.resume import Existing


_FEW = 12  # options that --help shows in one group


class Refusal(click.ClickException):
    """An error before the first conversion. Nothing was converted."""

    exit_code = 2


class Option(click.Option):
    """An option that --help shows under a heading, with its default.

    Attributes:
        group: The heading.
    """

    def __init__(self, *names: Any, group: str = "Options", **attributes: Any) -> None:
        """Makes an option.

        Args:
            *names: Those of click.Option.
            group: The heading.
            **attributes: Those of click.Option.
        """
        super().__init__(*names, **{"show_default": True, **attributes})
        self.group = group


class Command(click.Command):
    """A command that shows its options in groups, and errors of the package without a traceback."""

    def __init__(
        self, *names: Any, failure: type[click.ClickException] = click.ClickException, **rest: Any
    ) -> None:
        """Makes a command.

        Args:
            *names: Those of click.Command.
            failure: What a SketchifyError becomes. An OptionsError is always wrong usage.
            **rest: Those of click.Command.
        """
        super().__init__(*names, **rest)
        self._failure = failure

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command.

        Args:
            ctx: Its context.

        Returns:
            What its function returns.

        Raises:
            click.ClickException: It raised an error of the package.
        """
        try:
            return super().invoke(ctx)
        except OptionsError as error:
            raise click.UsageError(str(error), ctx) from error
        except SketchifyError as error:
            raise self._failure(str(error)) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, one section for each group, in the order of their first options.

        --help goes into the last group. A short list is not divided into groups.

        Args:
            ctx: The context of the command.
            formatter: Where they are written.
        """
        groups: dict[str, list[tuple[str, str]]] = {}
        group = "Options"
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        for option in options:
            if len(options) > _FEW:
                group = getattr(option, "group", group)
            if record := option.get_help_record(ctx):
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


command = functools.partial(click.command, cls=Command)
option = functools.partial(click.option, cls=Option)

_looks = functools.partial(option, group="Pencil and looks")
_gpu = functools.partial(option, group="GPU")
_memory = functools.partial(option, group="Memory and safety")
_messages = functools.partial(option, group="Messages")


def _parsed(number: Callable[[str], float], _: object, __: object, value: Any) -> Any:
    """Converts numbers. Words and file names stay as they are, for others to check."""
    with contextlib.suppress(TypeError, ValueError):
        return number(value)
    return value


model = _looks(
    "--model",
    metavar="NAME|PATH",
    default=Options.model,
    help="A shipped model (see info), or an ONNX file with its manifest beside it.",
)
strength = _looks(
    "--strength",
    metavar="FACTOR",
    type=click.FloatRange(0, 4),
    default=Options.strength,
    help="Strength of the lines. The ink of the pencil is multiplied by it.",
)
binary = _looks(
    "--binary",
    type=click.Choice(get_args(Binary)),
    default=Options.binary,
    help="Input of the U-Net. threshold: the adaptive threshold; page: the picture itself, for "
    "pages that are already black and white; auto: page for such pages if the model takes a hint, "
    "else threshold.",
)
detail = option(
    "--detail",
    group="Size",
    metavar="native|auto|N",
    callback=functools.partial(_parsed, int),
    help="Longer side, in pixels, at which pictures are drawn. Larger pictures are reduced, drawn, "
    "and enlarged again, so that lines in large photos are visible. native: the size of the "
    f"result; auto: {AUTO_DETAIL}. Default: native, and auto with a --look other than exact.",
)
_LOOK_OPTIONS = (
    _looks(
        "--look",
        type=click.Choice(tuple(LOOKS)),
        default=Options.look,
        help="What becomes of a sketch. natural: crisp lines, black areas stay black, clean paper, "
        "for pages and photos; dark: the same with a darker pencil; chalk: white lines on a dark "
        "ground; color: the picture's colours under the pencil, but no videos. Not for "
        "--mode binary, and neither are --blacks, --paper and --levels.",
    ),
    _looks(
        "--blacks",
        type=click.Choice(BLACKS),
        help="Black areas: keep them black, or hollow, with an outline. Default: keep with natural "
        "and dark, else hollow.",
    ),
    _looks(
        "--paper",
        metavar="0..1",
        type=click.FloatRange(0, 1),
        help="Drop the faintest ink; 1 fades all that is paler than half of black. Default: "
        f"{LOOKS['natural'].paper:g}, and 0 with exact.",
    ),
    _looks(
        "--levels",
        type=click.Choice(LEVELS),
        help="auto: the darkest strokes of each image become almost black. Default: auto, and off "
        "with exact.",
    ),
)


def look(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --look, --blacks, --paper and --levels."""
    for add in reversed(_LOOK_OPTIONS):
        command = add(command)
    return command


device = _gpu(
    "--device",
    metavar="auto|cpu|cuda[:N]",
    default=Options.device,
    help="auto: a GPU if there is one, else the CPU. Any other device must be available.",
)
precision = _gpu(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=Options.precision,
    help="Arithmetic of the U-Net. fp32: float32; half: FP16 on a GPU, bfloat16 on a CPU that has "
    "it; int8: the model's quantized form, with OpenVINO or TensorRT; auto: int8 on a CPU with "
    "VNNI if the model has that form, else half.",
)
runtime = _gpu(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=Options.runtime,
    help="What runs the U-Net. auto: OpenVINO on a CPU; on a GPU TensorRT if there is an engine "
    "(see build-engine), else torch. tensorrt builds a missing engine.",
)
tile = _memory(
    "--tile",
    metavar="PIXELS",
    type=click.IntRange(min=256),
    default=Options.tile,
    help="Maximum side of the tiles in which images go through the U-Net. Smaller tiles need less "
    "memory.",
)
max_pixels = _memory(
    "--max-pixels",
    metavar="N",
    type=click.IntRange(min=1),
    default=Options.max_pixels,
    help="Maximum number of pixels of an image. Larger images are refused.",
)
as_json = _messages(
    "--json", "as_json", is_flag=True, help="Print one JSON document to standard output."
)
quiet = _messages("-q", "--quiet", is_flag=True, help="Show only errors.")

_hint = _looks(
    "--hint",
    metavar="auto|none|0..1|FILE|FOLDER",
    callback=functools.partial(_parsed, float),
    help="Darkness of the strokes. auto: follow the tones of each picture; none: leave it to the "
    "U-Net; a number: the same darkness for all strokes, 1 is ink; FILE: a picture for one INPUT "
    "and all its pages, dark where strokes should be dark, transparent where the tones of INPUT "
    "decide; FOLDER (convert only): a picture for each result, FOLDER/ch1/a.png for OUT/ch1/a.png, "
    "with any ending, and auto for the rest. Default: auto.",
)
_pencil = _looks(
    "--pencil",
    type=click.Choice(tuple(PENCILS)),
    help="The darkness of the strokes by the name of a pencil: "
    + ", ".join(f"{name} is {darkness:g}" for name, darkness in PENCILS.items())
    + ".",
)


def hint(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --hint and --pencil, which become the option `hint`. A folder becomes a Path.

    Args:
        command: The function of a command.

    Returns:
        The function with these options.
    """

    @functools.wraps(command)
    def with_hint(*arguments: Any, hint: Any, pencil: str | None, **options: Any) -> None:
        if pencil is not None:
            if hint is not None:
                raise click.UsageError("--hint and --pencil cannot be used together")
            hint = PENCILS[pencil]
        if isinstance(hint, str) and hint not in ("auto", "none"):
            is_folder = os.path.isdir(hint)  # noqa: PTH112 (which may raise)
            hint = Path(hint) if is_folder else _painted(hint)
        command(*arguments, hint=Options.hint if hint is None else hint, **options)

    return _hint(_pencil(with_hint))


def _painted(name: str) -> Hint:
    from sketchify_rt import inputs  # with NumPy

    try:
        return inputs.hint(name)
    except OptionsError as error:
        raise click.UsageError(str(error)) from error


def check_painted(hint: Hint | Path, inputs: Sequence[str]) -> None:
    """Checks that a painted hint has one input.

    Args:
        hint: The option, or a folder of hints.
        inputs: Names of the inputs.

    Raises:
        click.UsageError: There are several inputs, or one that is not a file.
    """
    # Unlike Path.is_file, this never raises.
    of_one = len(inputs) == 1 and (inputs[0] == "-" or os.path.isfile(inputs[0]))  # noqa: PTH113
    if isinstance(hint, Painted) and not of_one:
        raise click.UsageError(
            "--hint FILE needs exactly one INPUT, a file. Convert the files one by one, or use "
            "convert --hint FOLDER"
        )


def existing(overwrite: bool, skip_existing: bool) -> Existing:
    """Tells what to do with a result that exists.

    Args:
        overwrite: Whether --overwrite is given.
        skip_existing: Whether --skip-existing is given.

    Returns:
        "overwrite", "skip" or "refuse".

    Raises:
        click.UsageError: Both are given.
    """
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing cannot be used together")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"
