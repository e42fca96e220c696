"""A program of someone else, as mypy sees it: what each call of the package is known to give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np
import numpy.typing as npt
import PIL.Image

import sketchify_rt
from sketchify_rt import (
    BackendUnavailable,
    DecodeError,
    DeviceMemoryError,
    EncodeError,
    Encoding,
    EngineError,
    InputError,
    ModelError,
    Options,
    OptionsError,
    OutputError,
    Sketchifier,
    SketchifyError,
    SketchTransform,
)

Gray = npt.NDArray[np.uint8]

errors: list[type[SketchifyError]] = [
    BackendUnavailable,
    DecodeError,
    DeviceMemoryError,
    EncodeError,
    EngineError,
    InputError,
    ModelError,
    OptionsError,
    OutputError,
]


def by_choice(
    sketchify: Sketchifier,
    encoding: Encoding | None,
    on_error: Literal["raise", "return"],
) -> None:
    """What is decided only when the program runs still has a type."""
    for result in sketchify.map(["page.jpg"], encoding=encoding, on_error=on_error):
        assert result is not None
    for file in sketchify.map(["page.jpg"], encoding="png", on_error=on_error):
        assert_type(file, bytes | SketchifyError)


def sketches(page: Path, gray: Gray, picture: PIL.Image.Image) -> None:
    sketchify_rt.Sketchy  # type: ignore[attr-defined]  # noqa: B018
    Sketchifier(mode="pencil")  # type: ignore[arg-type]
    Sketchifier(colour=True)  # type: ignore[call-arg]
    assert_type(sketchify_rt.sketchify(page, device="cpu", hint=0.5), Gray)
    assert_type(sketchify_rt.sketchify(picture, "lite"), PIL.Image.Image)
    with Sketchifier(strength=1.2, hint=picture, threads=2) as sketchify:
        assert_type(sketchify, Sketchifier)
        assert_type(sketchify(page), Gray)
        assert_type(sketchify("page.jpg"), Gray)
        assert_type(sketchify(b"bytes"), Gray)
        assert_type(sketchify(gray), Gray)
        assert_type(sketchify(picture), PIL.Image.Image)
        assert_type(sketchify(page, hint="4B", max_side=800, strength=1), Gray)
        assert_type(sketchify(picture, mode="dodge"), PIL.Image.Image)
        sketchify(page, device="cpu")  # type: ignore[call-overload]
        assert_type(sketchify.encode(page, Encoding("webp")), bytes)
        assert_type(sketchify.encode(page, "webp", hint=gray, square=256), bytes)
        sketchify.save(page, "sketch.png", strenght=2)  # type: ignore[call-arg]
        assert_type(sketchify.encode_batch([page, gray]), list[bytes | Exception])
        assert_type(sketchify.map([page]), Iterator[Any])
        assert_type(sketchify.map([page], on_error="return", strength=2), Iterator[Any])
        assert_type(sketchify.map([page], encoding="webp"), Iterator[bytes])
        assert_type(sketchify.map([page], encoding=Encoding(), workers=2), Iterator[bytes])
        files = sketchify.map([page], encoding="png", on_error="return", mode="dodge")
        assert_type(files, Iterator[bytes | SketchifyError])
        sketchify.map([page], encoding="gif")  # type: ignore[call-overload]
        sketchify.map([page], encoding="png", on_error="skip")  # type: ignore[call-overload]
        assert_type(SketchTransform(strength=2)(picture), PIL.Image.Image)
        assert_type(SketchTransform()(gray), Gray)
        assert_type(sketchify.options, Options)
        assert_type(sketchify.options.strength, float)
