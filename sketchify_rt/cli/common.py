"""Options that several commands share, each a decorator, and their errors."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from sketchify_rt.errors import OptionsError
from sketchify_rt.options import (
    AUTO_DETAIL,
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


def _detail(_: click.Context, __: click.Parameter, value: str) -> str | int:
    """Converts integers. The options check the rest."""
    try:
        return int(value)
    except ValueError:
        return value


detail = click.option(
    "--detail",
    metavar="native|auto|N",
    default=Options.detail,
    show_default=True,
    callback=_detail,
    help="Longer side in pixels that pictures are drawn at. Larger ones are reduced, drawn and "
    f"enlarged again, so that large photos have visible lines. auto: {AUTO_DETAIL}; native: the "
    "size of the result.",
)


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
        if not words and os.path.isdir(hint):  # noqa: PTH112 (which may raise)
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
