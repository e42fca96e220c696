"""Whatever a caller hands in, normalised once, at the door."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from sketchify_rt.errors import DecodeError, InputError, SketchifyError
from sketchify_rt.image import Gray, to_luma

if TYPE_CHECKING:
    import PIL.Image


class SupportsDLPack(Protocol):
    """A tensor of any library, https://dmlc.github.io/dlpack/latest/python_spec.html."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


if TYPE_CHECKING:
    ImageInput = str | os.PathLike[str] | bytes | Gray | PIL.Image.Image | SupportsDLPack


@dataclass(frozen=True)
class File:
    """The bytes of an image file. name: for messages."""

    name: str
    data: bytes


Loaded = File | Gray | SupportsDLPack
"""A file, luma on the host, or a tensor of a device."""


def load(source: ImageInput) -> Loaded:
    """Reads a path, and turns pixels of the host into luma; decodes nothing.

    Raises InputError for what is no image, or cannot be read; DecodeError for a PIL image whose
    file is damaged.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return File("<bytes>", bytes(source))
    if isinstance(source, np.ndarray):
        return to_luma(source)
    if is_pil(source):
        return _luma_of_pil(source)
    if on_device(source):
        return source
    if hasattr(source, "__dlpack__"):
        return _luma_of_tensor(source)
    raise InputError(
        "an image is a path, bytes, a NumPy array, a PIL image or a DLPack tensor, not "
        f"{type(source).__name__}"
    )


def on_device(source: object) -> TypeGuard[SupportsDLPack]:
    """Whether it is a tensor beyond the host's memory."""
    if isinstance(source, np.ndarray) or not hasattr(source, "__dlpack_device__"):
        return False
    cpu, cuda_host = 1, 3  # kDLCPU, kDLCUDAHost
    try:
        return source.__dlpack_device__()[0] not in (cpu, cuda_host)
    except Exception:  # of a library's own; `load` tells what is wrong with it
        return False


def is_pil(source: object) -> TypeGuard[PIL.Image.Image]:
    """Told by name, so that Pillow is not imported for those who do not use it."""
    return any(
        (base.__module__, base.__name__) == ("PIL.Image", "Image") for base in type(source).__mro__
    )


def within(images: Sequence[Loaded | SketchifyError], most: int | None) -> Iterator[slice]:
    """Cuts a batch into runs of at most `most` pixels, or of one image that has more.

    A file counts as many pixels as its header says.
    """
    start, total = 0, 0
    for place, image in enumerate(images):
        pixels = _pixels(image)
        if most is not None and place > start and total + pixels > most:
            yield slice(start, place)
            start, total = place, 0
        total += pixels
    yield slice(start, len(images))


def _pixels(image: Loaded | SketchifyError) -> int:
    if isinstance(image, File):
        from sketchify_rt.codec import containers

        return containers.pixels(image.data)
    return image.size if isinstance(image, np.ndarray) else 0


def _read(path: str) -> File:
    if not path:
        raise InputError("an empty path names no file")
    try:
        return File(path, Path(path).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({why})") from error


def _luma_of_tensor(source: Any) -> Gray:
    try:
        pixels = np.from_dlpack(source)
    except Exception as error:  # of a library's own
        raise InputError(f"the tensor cannot be shared as an array: {error}") from error
    return to_luma(pixels)


def _luma_of_pil(source: PIL.Image.Image) -> Gray:
    from sketchify_rt.codec import cpu as codec

    try:
        return codec.from_pil(source)
    except SketchifyError:
        raise
    except Exception as error:  # Pillow reads files late, and broken ones raise anything
        name = getattr(source, "filename", "") or "<PIL image>"
        raise DecodeError(str(name), f"cannot be read: {error}") from error
