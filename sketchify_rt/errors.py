"""Everything that sketchify_rt raises on purpose derives from `SketchifyError`."""

from __future__ import annotations

import re
from typing import TypeVar

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
E = TypeVar("E", bound=BaseException)


class SketchifyError(Exception):
    """Base of all errors below. The message names the thing, what is wrong and what to do."""


class OptionsError(SketchifyError, ValueError):
    """An option has a value outside its documented range, or two options contradict each other."""


class InputError(SketchifyError, ValueError):
    """What was handed in is no image: wrong type, shape or dtype, or no such file."""


class OverMemory(InputError):
    """An image alone needs more memory than all images in work may have together."""


class ContainerError(InputError):
    """An archive or a PDF file that is none, is damaged, locked, or made to do harm."""


class DecodeError(SketchifyError, ValueError):
    """Encoded bytes are no image that can be read.

    Attributes:
        source: File name, or a word for where the bytes came from.
        reason: What is wrong with them.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        return type(self), (self.source, self.reason)  # so that it survives a process boundary


class DecoderKilled(DecodeError):
    """Something else than the image ended the process that read it; it may be read another time."""


class EncodeError(SketchifyError, ValueError):
    """An image cannot be written in the format asked for, for instance because of its size."""


class OutputError(SketchifyError, OSError):
    """A result cannot be written: folder not writable, disk full, name taken."""

    def __reduce__(self) -> tuple[type[OutputError], tuple[object, ...], dict[str, int | None]]:
        return type(self), self.args, {"errno": self.errno}  # which may be set after the start


class BackendUnavailable(SketchifyError, RuntimeError):
    """A device or runtime was asked for by name and cannot be had; the message tells the remedy."""


class DeviceMemoryError(SketchifyError, MemoryError):
    """The memory of a GPU does not hold what one image, or a TensorRT engine, needs."""


class EngineError(SketchifyError, RuntimeError):
    """A TensorRT engine cannot be built, or is damaged, or is for another GPU, version or model."""


class ModelError(SketchifyError, RuntimeError):
    """A model is unknown, or its file and its manifest do not belong together."""


def escaped(text: str, keep: str = "") -> str:
    """Escapes control characters, so that a terminal shows them instead of obeying them.

    Args:
        text: A message, or a name in one.
        keep: Control characters that stay.
    """
    return _CONTROLS.sub(lambda at: at[0] if at[0] in keep else repr(at[0])[1:-1], text)


def bare(error: E) -> E:
    """Removes the traceback of an error, and of those it came from, to keep it as a value.

    A traceback keeps the variables of all functions that the error went through: files and images,
    and also the list that it is put into. All would stay until the garbage collector runs.
    """
    error.__traceback__ = None
    for cause in (error.__cause__, error.__context__):
        if cause is not None and cause.__traceback__ is not None:
            bare(cause)
    return error
