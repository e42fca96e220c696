"""Options that several commands share, each a decorator, and their errors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from sketchify_rt.errors import OptionsError
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


class Refusal(click.ClickException):
    """An error before the first conversion. Nothing was converted."""

    exit_code = 2


model = click.option(
    "--model",
    metavar="NAME|PATH",
    default=Options.model,
    show_default=True,
    help="A shipped model (see info), or an ONNX file with its manifest beside it.",
)

strength = click.option(
    "--strength",
    type=click.FloatRange(0, 4),
    default=Options.strength,
    show_default=True,
    help="Line strength: the ink of the pencil is multiplied by it.",
)


def _number(_: click.Context, __: click.Parameter, value: str | None) -> str | float | None:
    """Converts numbers. Words and file names stay as they are."""
    with contextlib.suppress(TypeError, ValueError):
        return float(value)  # type: ignore[arg-type]
    return value


def _detail(_: click.Context, __: click.Parameter, value: str | None) -> str | int | None:
    """Converts integers. The options check the rest."""
    with contextlib.suppress(TypeError, ValueError):
        return int(value)  # type: ignore[arg-type]
    return value


detail = click.option(
    "--detail",
    metavar="native|auto|N",
    callback=_detail,
    help="Longer side in pixels that pictures are drawn at. Larger ones are reduced, drawn and "
    f"enlarged again, so that large photos have visible lines. auto: {AUTO_DETAIL}; native: the "
    "size of the result. Default: native, and auto with a --look other than exact.",
)


_LOOK_OPTIONS = (
    click.option(
        "--look",
        type=click.Choice(tuple(LOOKS)),
        default=Options.look,
        show_default=True,
        help="What becomes of a sketch. natural: crisp lines, black areas stay black, clean paper, "
        "for pages and photos; dark: the same with a darker pencil; chalk: white lines on a dark "
        "ground. Not for --mode binary, and neither are the next three.",
    ),
    click.option(
        "--blacks",
        type=click.Choice(BLACKS),
        help="Black areas: keep them black, or hollow, with an outline. Default: keep with natural "
        "and dark, else hollow.",
    ),
    click.option(
        "--paper",
        metavar="0..1",
        type=click.FloatRange(0, 1),
        help="Drop the faintest ink; 1 fades all that is paler than half of black. Default: "
        f"{LOOKS['natural'].paper:g}, and 0 with exact.",
    ),
    click.option(
        "--levels",
        type=click.Choice(LEVELS),
        help="auto: the darkest strokes of each image become almost black. Default: auto, and off "
        "with exact.",
    ),
)


def look(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --look, --blacks, --paper and --levels."""
    for option in reversed(_LOOK_OPTIONS):
        command = option(command)
    return command


def check_painted(hint: Hint | Path, inputs: Sequence[str]) -> None:
    """Checks that a painted hint has one input.

    Args:
        hint: The option, or a folder of hints.
        inputs: Names of the inputs.

    Raises:
        click.UsageError: There are several inputs, or one that is not a file.
    """
    of_one = len(inputs) == 1 and (inputs[0] == "-" or Path(inputs[0]).is_file())
    if isinstance(hint, Painted) and not of_one:
        raise click.UsageError(
            "--hint FILE needs exactly one INPUT, a file. Convert the files one by one, or use "
            "convert --hint FOLDER"
        )


_hint = click.option(
    "--hint",
    metavar="auto|none|0..1|FILE|FOLDER",
    callback=_number,
    help="How dark strokes are. auto: as the tones of each picture; none: the U-Net decides; a "
    "number: one darkness for all strokes, 1 is ink; FILE: a picture, for one INPUT and all its "
    "pages, dark where strokes should be dark, transparent where the tones of INPUT decide; FOLDER "
    "(convert only): such pictures by the names of results, FOLDER/ch1/a.png for OUT/ch1/a.png, "
    "with any ending, and auto for the rest. Default: auto.",
)
_pencil = click.option(
    "--pencil",
    type=click.Choice(tuple(PENCILS)),
    help="A hint by the name of a pencil: "
    + ", ".join(f"{name} is {darkness:g}" for name, darkness in PENCILS.items())
    + ".",
)


binary = click.option(
    "--binary",
    type=click.Choice(get_args(Binary)),
    default=Options.binary,
    show_default=True,
    help="Input of the U-Net: threshold is the adaptive threshold; page is the picture itself, for "
    "pages that are already black and white; auto detects such pages if the model takes a hint.",
)


def hint(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --hint and --pencil, which become the option `hint`. A folder stays a Path.

    Args:
        command: The command.

    Returns:
        The command with these options.
    """

    @functools.wraps(command)
    def with_hint(*arguments: Any, hint: Any, pencil: str | None, **options: Any) -> None:
        if hint is not None and pencil is not None:
            raise click.UsageError("--hint and --pencil cannot be used together")
        if pencil is not None:
            hint = PENCILS[pencil]
        words = not isinstance(hint, str) or hint in ("auto", "none")
        if not words and Path(hint).is_dir():
            hint = Path(hint)
        elif not words:
            from sketchify_rt import inputs  # with NumPy

            try:
                hint = inputs.hint(hint)
            except OptionsError as error:
                raise click.UsageError(str(error)) from error
        command(*arguments, hint=Options.hint if hint is None else hint, **options)

    return _hint(_pencil(with_hint))


device = click.option(
    "--device",
    metavar="auto|cpu|cuda[:N]",
    default=Options.device,
    show_default=True,
    help="auto is a GPU if there is one, else the CPU. Any other device must be available.",
)

precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=Options.precision,
    show_default=True,
    help="Arithmetic of the U-Net: auto is int8 on a CPU with VNNI if the model has that form, "
    "else half; half is bfloat16 on a CPU that has it, FP16 on a GPU; fp32 is float32 everywhere; "
    "int8 is the model's quantized form, with OpenVINO or TensorRT.",
)

runtime = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=Options.runtime,
    show_default=True,
    help="What runs the U-Net: auto is OpenVINO on a CPU; on a GPU it is TensorRT if there is an "
    "engine (see build-engine), else torch. tensorrt builds a missing engine.",
)

tile = click.option(
    "--tile",
    metavar="PIXELS",
    type=click.IntRange(min=256),
    default=Options.tile,
    show_default=True,
    help="Larger images go through the U-Net in tiles of at most this side. Sets the peak memory.",
)

max_pixels = click.option(
    "--max-pixels",
    metavar="N",
    type=click.IntRange(min=1),
    default=Options.max_pixels,
    show_default=True,
    help="Maximum number of pixels of an image. Larger images are refused.",
)
