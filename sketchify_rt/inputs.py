"""Whatever a caller hands in, normalised once, at the door."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.codec import formats
from sketchify_rt.codec.header import File as File
from sketchify_rt.errors import DecodeError, InputError, OptionsError, SketchifyError
from sketchify_rt.image import Gray, to_luma, to_rgb
from sketchify_rt.options import MAX_PIXELS, PENCILS, Binary, Encoding, Hint, Painted, check_hint

if TYPE_CHECKING:
    import PIL.Image

    from sketchify_rt.codec.extras import Extras
    from sketchify_rt.options import HintInput


@runtime_checkable
class SupportsDLPack(Protocol):
    """A tensor of any library, https://dmlc.github.io/dlpack/latest/python_spec.html."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


@runtime_checkable
class SupportsRead(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int = ..., /) -> bytes:
        """At most `size` bytes."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that is decoded already, for example by another process.

    Attributes:
        name: For messages.
        luma: uint8 (H, W), C-contiguous, upright.
        extras: What there is besides, see `codec.extras.read`; None for nothing.
        hint, binary: Of this image alone, see `Options`; None for those of the `Sketchifier`.
    """

    name: str
    luma: Gray
    extras: Extras | None = None
    hint: Hint | None = None
    binary: Binary | None = None


if TYPE_CHECKING:
    Pixels = Gray | PIL.Image.Image | SupportsDLPack
    Data = bytes | bytearray | memoryview | SupportsRead
    ImageInput = str | os.PathLike[str] | Data | Pixels | File | Picture

Loaded = File | Picture | Gray | SupportsDLPack
"""A file, luma on the host, or a tensor of a device."""


def load(source: ImageInput, encoding: Encoding | None = None, colours: bool = False) -> Loaded:
    """Reads a path, and turns pixels of the host into luma. Decodes nothing.

    Args:
        source: See `Sketchifier`.
        encoding: Of the result; None for pixels. If it keeps more than the picture, that is kept
            of pixels too, in a Picture.
        colours: Keep these of pixels, too.

    Raises:
        InputError: The source is no image, or cannot be read; or it is a tensor of a device, and
            colours are wanted.
        DecodeError: The file of a PIL image is damaged.
    """
    if isinstance(source, (File, Picture)):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return File("<bytes>", bytes(source))
    if isinstance(source, np.ndarray):
        return _of_array(source, encoding, colours)
    if is_pil(source):
        return _of_pil(source, encoding, colours)
    if on_device(source):
        if colours:
            raise InputError(
                "look color does not support tensors of a device. Copy it to the host, or choose "
                "another look"
            )
        return source
    if isinstance(source, SupportsDLPack):
        return _of_tensor(source, encoding, colours)
    if isinstance(source, SupportsRead):
        return read(source)
    raise InputError(
        "an image must be a path, bytes, an open file, a NumPy array, a PIL image or a DLPack "
        f"tensor, got {type(source).__name__}"
    )


def owned(source: ImageInput) -> ImageInput:
    """Returns the source, copied if its caller may overwrite its pixels before they are read.

    Paths, bytes, files that Pillow has yet to read, and tensors of a device are returned as they
    are.
    """
    if isinstance(source, np.ndarray):
        return source.copy()
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if is_pil(source):
        # An image of a file has its pixels for itself, if it has read them at all.
        return source if hasattr(source, "filename") else source.copy()
    if isinstance(source, SupportsDLPack):
        with contextlib.suppress(Exception):  # `load` tells what is wrong with it
            return source if on_device(source) else np.from_dlpack(source).copy()
    elif isinstance(source, SupportsRead):
        with contextlib.suppress(SketchifyError):  # `load` tells what is wrong with it
            return read(source)
    return source


def hint(source: HintInput) -> Hint:
    """Returns a hint as `Options` takes it: words and numbers as they are, pictures as a `Painted`.

    Args:
        source: See `Options.hint`.

    Raises:
        OptionsError: The picture cannot be read, or the array has another type or shape.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 2 or not source.size:
            raise OptionsError(
                "hint must be an array of uint8 (H, W), 255 the darkest and 0 undecided, got "
                f"{source.dtype} {source.shape}"
            )
        height, width = source.shape
        return Painted(height, width, source.tobytes())
    if isinstance(source, str) and source in PENCILS:
        return PENCILS[source]
    if source in ("auto", "none"):
        return cast("Hint", source)
    if not (isinstance(source, (str, os.PathLike)) or is_pil(source)):
        return cast("Hint", source)  # `Options` checks it
    try:
        return painted(source)
    except SketchifyError as error:
        raise OptionsError(
            f"hint must be auto, none, between 0 and 1, a pencil ({', '.join(PENCILS)}), or a "
            f"picture that can be read: {error}"
        ) from error


def painted(source: ImageInput) -> Painted:
    """Returns the hint of a picture, see `Options.hint`. Raises InputError, DecodeError."""
    luma, alpha = _with_alpha(source)
    levels = _LEVELS[luma]
    if alpha is not None:
        levels[alpha < 128] = 0
    height, width = luma.shape
    return Painted(height, width, levels.tobytes())


_LEVELS = (1 + (254 * np.arange(255, -1, -1) + 127) // 255).astype(np.uint8)  # of a hint, by luma


def hinted(source: ImageInput, own: HintInput) -> File | Picture:
    """Gives an image a hint of its own, which counts instead of that of the `Sketchifier`.

    Args:
        source: See `Sketchifier`; no tensor of a device.
        own: See `Options.hint`.

    Returns:
        A source for a `Sketchifier`.

    Raises:
        OptionsError: `own` is no hint.
        InputError: The source is no image, or cannot be read.
        DecodeError: The file of a PIL image is damaged.

    Examples:
        >>> sketch = sketchify(hinted("page.jpg", "hint.png"))
    """
    told = check_hint(hint(own))
    # With all that may be kept; who encodes keeps what is wanted.
    image = load(
        owned(source), Encoding(metadata=True, alpha="keep"), colours=not on_device(source)
    )
    if isinstance(image, np.ndarray):
        image = Picture("<image>", image)
    if not isinstance(image, (File, Picture)):
        raise InputError("a tensor of a device takes no hint of its own. Copy it to the host")
    return replace(image, hint=told)


def _with_alpha(source: ImageInput) -> tuple[Gray, Gray | None]:
    from sketchify_rt.codec import cpu as codec
    from sketchify_rt.codec import extras

    keep = Encoding(alpha="keep")
    picture = load(source, keep)
    if isinstance(picture, File):
        luma = codec.decode(picture, MAX_PIXELS)
        return luma, extras.read(picture, keep).alpha
    assert isinstance(picture, Picture)  # noqa: S101 (of a PIL image it is)
    return picture.luma, picture.extras.alpha if picture.extras else None


def on_device(source: object) -> TypeGuard[SupportsDLPack]:
    """Whether it is a tensor beyond the host's memory."""
    if isinstance(source, np.ndarray) or not hasattr(source, "__dlpack_device__"):
        return False
    cpu, cuda_host = 1, 3  # kDLCPU, kDLCUDAHost
    try:
        return source.__dlpack_device__()[0] not in (cpu, cuda_host)
    except Exception:  # of a library's own; `load` tells what is wrong with it
        return False


def alpha_of(pixels: Any) -> Any:
    """Alpha, (H, W), of an array or a tensor (H, W, 4); None of another."""
    shape = tuple(getattr(pixels, "shape", ()))
    return pixels[..., 3] if len(shape) == 3 and shape[2] == 4 else None


def is_pil(source: object) -> TypeGuard[PIL.Image.Image]:
    """Whether it is a PIL image. Pillow is not imported for those who do not use it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def as_pil(result: Any) -> PIL.Image.Image | Exception:
    """Returns a sketch as a PIL image of mode L or RGB, and an error as it is."""
    if isinstance(result, Exception):
        return result
    import PIL.Image

    return PIL.Image.fromarray(result)


def within(images: list[Loaded | Exception], most: int | None) -> list[list[Loaded | Exception]]:
    """Cuts a batch into runs of at most `most` pixels, or of one image that has more.

    A file counts as many pixels as its header says.
    """
    if most is None:
        return [images]
    runs: list[list[Loaded | Exception]] = [[]]
    total = 0
    for image in images:
        size = pixels(image)
        if runs[-1] and total + size > most:
            runs.append([])
            total = 0
        runs[-1].append(image)
        total += size
    return runs


def pixels(image: Loaded | Exception) -> int:
    """Returns the number of pixels, of a file by its header; 0 for an error."""
    if isinstance(image, File):
        return image.header.pixels
    if isinstance(image, Picture):
        return image.luma.size
    return image.size if isinstance(image, np.ndarray) else 0


# No TIFF, WebP or BMP can be larger, and no other picture is: MAX_PIXELS of 16 bits and four
# channels, not compressed at all, are half of it.
MAX_FILE = 4 * 2**30
_HEAD = 1024  # bytes that tell what a file is
_CHUNK = 2**20
_OTHERS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def _read_path(path: str) -> File:
    if not path:
        raise InputError("path is empty. Give the path of a picture file")
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                what = _OTHERS.get(stat.S_IFMT(status.st_mode), "no file")
                raise InputError(f"{path}: is {what}. Give a picture file, or its bytes")
            if status.st_size > MAX_FILE:
                raise _too_large(path, f"{status.st_size / 2**30:.1f}")
            is_picture = formats.identify(file.peek(_HEAD)) in formats.READABLE
            return File(path, file.read(status.st_size if is_picture else _HEAD))
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        raise _unreadable(path, error) from error


def read(stream: SupportsRead, name: str | None = None) -> File:
    """Reads an open file; as of a path, only its beginning if it is no picture.

    Args:
        stream: Opened for bytes.
        name: For messages; None for the stream's own.

    Raises:
        InputError: It has more than MAX_FILE bytes, of which one more is read, or cannot be read.
    """
    name = name or str(getattr(stream, "name", "<file>"))
    data = io.BytesIO()
    try:
        head = stream.read(_HEAD)
        if not isinstance(head, bytes):
            got = type(head).__name__
            raise InputError(f'{name}: must be opened for bytes, mode "rb", got {got}')
        while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
            head += more  # of a pipe, which gives what it has
        data.write(head)
        if formats.identify(head) in formats.READABLE:
            while chunk := stream.read(min(_CHUNK, MAX_FILE + 1 - data.tell())):
                data.write(chunk)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise _unreadable(name, error) from error
    if data.tell() > MAX_FILE:
        raise _too_large(name, f"more than {MAX_FILE / 2**30:.0f}")
    return File(name, data.getvalue())


def _open(path: str, flags: int) -> int:
    """Without waiting for someone to write to it, where it is a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})")


def _too_large(name: str, size: str) -> InputError:
    return InputError(
        f"{name}: has {size} GiB, and a picture file may have {MAX_FILE / 2**30:.0f}. If it is a "
        "picture, reduce it or cut it into parts"
    )


def _of_array(pixels: NDArray[Any], encoding: Encoding | None, colours: bool) -> Gray | Picture:
    luma = to_luma(pixels)
    alpha = alpha_of(pixels) if encoding and encoding.alpha == "keep" else None
    if alpha is None and not colours:
        return luma
    from sketchify_rt.codec.extras import Extras

    return Picture(
        "<image>", luma, Extras(alpha=alpha, colours=to_rgb(pixels) if colours else None)
    )


def _of_tensor(source: Any, encoding: Encoding | None, colours: bool) -> Gray | Picture:
    try:
        pixels = np.from_dlpack(source)
    except Exception as error:  # of a library's own
        raise InputError(f"the tensor cannot be shared as an array: {error}") from error
    return _of_array(pixels, encoding, colours)


def _of_pil(source: PIL.Image.Image, encoding: Encoding | None, colours: bool) -> Gray | Picture:
    from sketchify_rt.codec import cpu as codec

    name = str(getattr(source, "filename", "") or "<PIL image>")
    try:
        if (encoding is None or encoding.plain) and not colours:
            return codec.from_pil(source)
        from sketchify_rt.codec import extras

        found = extras.from_pil(source, encoding, colours)
        return Picture(name, codec.from_pil(source), found)
    except SketchifyError:
        raise
    except Exception as error:  # Pillow reads files late, and broken ones raise anything
        # Its tiles are what is left to read. Where there is no file any more, Pillow's own error
        # is an assertion without a text.
        file = getattr(source, "fp", None)
        if getattr(source, "tile", None) and (file is None or file.closed):
            why = "its file was closed before its pixels were read; call load() before you close it"
            raise DecodeError(name, why) from error
        raise DecodeError(name, f"cannot be read: {str(error) or type(error).__name__}") from error
