"""Image files to luma and back on the processor.

OpenCV reads JPEG (straight to the luma plane, without the GIL), WebP, and colour of 16 bits a
sample; Pillow reads the rest, strictly, and all headers but those of WebP and PNM.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sketchify_rt.codec import containers, pnm
from sketchify_rt.errors import DecodeError, EncodeError, InputError
from sketchify_rt.image import Gray, bands, orient, to_luma
from sketchify_rt.options import Encoding

# The classes and not Image.open, whose own pixel limit is a process-wide setting and would come
# before ours.
_PILLOW: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
}
_ORIENTATION = 274  # EXIF and TIFF tag
_BITS_PER_SAMPLE = 258  # TIFF tag

_LIMITS = {"jpg": 65500, "webp": 16383}  # pixels a side that the encoders accept
_JPEG_QUALITY = 95


def decode(data: bytes, source: str, max_pixels: int) -> Gray:
    """Luma of an encoded image, (H, W) uint8, upright (EXIF orientation applied).

    data: JPEG, PNG, WebP, BMP, GIF, TIFF (first frame or page), AVIF or PNM, whatever its name
    says. Samples of 16 bits become v / 257, rounded; transparency is composited on white.
    source: file name for messages. max_pixels: larger images are refused before they are decoded.
    Raises DecodeError with the reason, and nothing else, for any bytes.
    """
    if not data:
        raise DecodeError(source, "is empty")
    name = containers.identify(data)
    if name not in containers.READABLE:
        seems = f"seems to be {name} and " if name else ""
        raise DecodeError(
            source, f"{seems}is not an image this program reads ({', '.join(containers.READABLE)})"
        )
    if reason := containers.damage(data, name):
        raise DecodeError(source, f"is {reason}")

    def check(width: int, height: int) -> None:
        if not 1 <= width * height <= max_pixels:
            raise DecodeError(
                source,
                f"has {width} x {height} pixels, and the limit is {max_pixels} in all; "
                "raise max_pixels to read it"
                if width * height
                else "has no pixels",
            )

    try:
        return _READERS.get(name, _read_pillow)(data, name, check)
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError(source, "does not fit into the memory there is") from error
    except Exception as error:  # decoders raise whatever comes up on broken data
        raise DecodeError(source, f"is no {name} that can be read ({error})") from error


_Check = Callable[[int, int], None]


def _read_pillow(data: bytes, name: str, check: _Check) -> Gray:
    with _PILLOW[name](io.BytesIO(data)) as image:
        check(*image.size)
        if name == "JPEG" and image.mode in ("L", "RGB"):
            return orient(_read_opencv(data, cv2.IMREAD_GRAYSCALE), _orientation(image))
        if _is_deep_colour(image, data):
            orientation = _orientation(image)
            return orient(_luma_of_bgr(_read_opencv(data, cv2.IMREAD_UNCHANGED)), orientation)
        return from_pil(image)


def _read_webp(data: bytes, name: str, check: _Check) -> Gray:
    # Pillow keeps five copies in four channels: 1,540 MB for 100 megapixels, OpenCV 570.
    check(*containers.webp_size(data))
    exif = Image.Exif()
    exif.load(containers.webp_exif(data))
    luma = _luma_of_bgr(_read_opencv(data, cv2.IMREAD_UNCHANGED))
    return orient(luma, exif.get(_ORIENTATION, 1))


def _read_pnm(data: bytes, name: str, check: _Check) -> Gray:
    header = pnm.read_header(data)
    check(header.width, header.height)
    samples = pnm.read_samples(data, header)
    table = _to_8_bits(header.maxval)
    luma = np.empty(samples.shape[:2], np.uint8)
    for rows in bands(luma.shape):
        luma[rows] = to_luma(table[np.minimum(samples[rows], header.maxval)])
    return luma


_READERS: dict[str, Callable[[bytes, str, _Check], Gray]] = {"WebP": _read_webp, "PNM": _read_pnm}


def _read_opencv(data: bytes, flags: int) -> NDArray[Any]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("corrupt data")
    return pixels


def _is_deep_colour(image: ImageFile, data: bytes) -> bool:
    """Whether the file has 16 bits a sample where Pillow would keep the high byte alone."""
    if isinstance(image, PngImageFile):
        return data[24] == 16 and not image.mode.startswith("I")
    if isinstance(image, TiffImageFile):
        return image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0] == 16 and image.mode in ("RGB", "RGBA")
    return False


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1
    return value if isinstance(value, int) else 1


def from_pil(image: Image.Image) -> Gray:
    """Luma of a Pillow image of any 8-bit or 16-bit mode, (H, W) uint8, under the rules of files.

    An EXIF orientation that the image carries is applied, as PIL.ImageOps.exif_transpose does.
    Raises InputError for modes without a defined white ("I", "F"), and what `image.load` raises.
    """
    image.load()
    if image.mode in ("I", "F", "LAB"):
        raise InputError(f"mode {image.mode} has no defined white; convert it to 8 or 16 bits")
    luma = np.empty((image.height, image.width), np.uint8)
    for rows in bands(luma.shape):
        luma[rows] = _luma_of_pil(image.crop((0, rows.start, image.width, rows.stop)))
    return orient(luma, _orientation(image))


def _luma_of_pil(image: Image.Image) -> Gray:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        luma = _to_8_bits(65535)[samples]
        if (key := image.info.get("transparency")) is not None:
            luma[samples == key] = 255
        return luma
    if image.has_transparency_data:
        return to_luma(np.asarray(image.convert("RGBA")))
    if image.mode in ("1", "L"):
        return to_luma(np.asarray(image.convert("L")))
    return to_luma(np.asarray(image.convert("RGB")))


def _luma_of_bgr(pixels: NDArray[Any]) -> Gray:
    """pixels: what OpenCV decodes: uint8 or uint16, (H, W) gray, (H, W, 3) BGR, (H, W, 4) BGRA."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"samples of type {pixels.dtype}")
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else ...
    table = _to_8_bits(65535)
    luma = np.empty(pixels.shape[:2], np.uint8)
    for rows in bands(luma.shape):
        band = pixels[rows][..., order]
        luma[rows] = to_luma(table[band] if band.dtype == np.uint16 else band)
    return luma


def _to_8_bits(maxval: int) -> NDArray[np.uint8]:
    """Table of v * 255 / maxval, rounded to nearest, for v in 0..maxval."""
    return ((np.arange(maxval + 1) * 255 + maxval // 2) // maxval).astype(np.uint8)


def encode(image: Gray, encoding: Encoding) -> bytes:
    """An image file of one gray channel.

    image: (H, W) uint8, rows contiguous. PNG and WebP keep every value unless `encoding` has a
    quality for WebP. Raises EncodeError if the format cannot hold an image of that size.
    """
    height, width = image.shape
    limit = _LIMITS.get(encoding.format)
    if limit and max(height, width) > limit:
        raise EncodeError(
            f"image is {width} x {height} pixels, and {encoding.format} holds at most {limit} "
            "a side; use png"
        )
    if encoding.format == "png":
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    elif encoding.format == "jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, encoding.quality or _JPEG_QUALITY]
    else:
        options = [cv2.IMWRITE_WEBP_QUALITY, encoding.quality or 101]  # over 100 is lossless
    done, data = cv2.imencode(f".{encoding.format}", image, options)
    if not done:
        raise EncodeError(f"image of {width} x {height} pixels cannot be written as {encoding}")
    return data.tobytes()
