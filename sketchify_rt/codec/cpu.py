"""Image files to luma and back on the processor.

OpenCV reads JPEG (the luma plane alone), WebP, and colour of 16 bits a sample. Pillow reads the
rest, because it is strict about damage, and every header but those of WebP and PNM.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sketchify_rt import forks
from sketchify_rt.codec import header, png, pnm
from sketchify_rt.codec.header import Header
from sketchify_rt.errors import BackendUnavailable, DecodeError, EncodeError, InputError
from sketchify_rt.image import Gray, bands, orient, to_luma
from sketchify_rt.options import Encoding

_EXIF_ORIENTATION = 274
# TIFF tags and values
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_PLANAR_CONFIGURATION, _SEPARATE = 284, 2
_EXTRA_SAMPLES, _STRAIGHT_ALPHA = 338, 2

SIDE_LIMITS = {"jpg": 65500, "webp": 16383}  # pixels a side, of libjpeg and of the format
JPEG_QUALITY = 95
_LOSSLESS_WEBP = 101  # what OpenCV takes for it

_Check = Callable[[int, int], None]  # of width and height, before any pixel is decoded


def decode(data: bytes, source: str, max_pixels: int, found: Header | None = None) -> Gray:
    """Luma of an image file, upright, whichever orientation it is stored in.

    Transparency is composited on white, 16 bits a sample become v / 257, rounded, and colour
    profiles are not applied. Damage within the picture data of a JPEG or lossy WebP, which have no
    checksum, can stay unnoticed.

    Args:
        data: JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or PNM, told by content; of several frames or
            pages the first is read.
        source: File name for messages.
        max_pixels: An image of more is refused before it is decoded.
        found: Its header; None to probe it here.

    Returns:
        uint8 (H, W).

    Raises:
        DecodeError: with the reason, whatever the bytes.
    """
    if not data:
        raise DecodeError(source, "is empty")
    found = found or header.probe(data)
    name = found.format
    if name not in header.READABLE:
        seems = f"seems to be {name}, which " if name else ""
        readable = ", ".join(header.READABLE)
        raise DecodeError(source, f"{seems}is not an image this program reads ({readable})")

    def check(width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise DecodeError(source, f"has no pixels ({width} x {height})")
        if width * height > max_pixels:
            raise DecodeError(
                source,
                f"is {width} x {height} = {width * height} pixels, over the limit of "
                f"{max_pixels}; raise max_pixels to read it",
            )

    try:
        if found.problem:
            raise ValueError(found.problem)
        return _READERS[name](data, found, check)
    except (DecodeError, BackendUnavailable):  # the latter: a package is missing
        raise
    except MemoryError as error:
        raise DecodeError(source, "does not fit into the memory there is") from error
    except Exception as error:  # broken data makes decoders raise anything
        why = str(error) or type(error).__name__
        raise DecodeError(source, f"cannot be read as {name}: {why}") from error


def _read_jpeg(data: bytes, found: Header, check: _Check) -> Gray:
    check(found.width, found.height)
    if found.channels == 4:
        return from_pil(JpegImageFile(io.BytesIO(data)))
    # 4.2 ms for 992 x 1401 against 4.8 in Pillow, with the same result
    return orient(read_opencv(data, cv2.IMREAD_GRAYSCALE), found.orientation)


def _read_pillow(data: bytes, found: Header, check: _Check) -> Gray:
    with header.open_pillow(str(found.format), data) as image:
        check(*image.size)
        return from_pil(image)


def _read_png(data: bytes, found: Header, check: _Check) -> Gray:
    header.check_png(data)
    with PngImageFile(io.BytesIO(header.without_profile(data))) as image:
        check(*image.size)
        bits = found.bits
        if bits == 16 and not image.mode.startswith("I;16"):
            return _read_deep_colour(data, orientation(image))
        if image.mode == "L" and "transparency" in image.info:
            # Pillow scales samples of 2 and 4 bits, but not the value that is transparent
            image.info["transparency"] *= 255 // (2**bits - 1) if bits < 8 else 1
        return from_pil(image)


def _read_tiff(data: bytes, found: Header, check: _Check) -> Gray:
    with TiffImageFile(io.BytesIO(data)) as image:
        check(*image.size)
        tags = image.tag_v2
        bits = tags.get(_BITS_PER_SAMPLE, (1,))
        separate = tags.get(_PLANAR_CONFIGURATION) == _SEPARATE and len(bits) > 1
        if bits[0] not in (1, 2, 4, 8, 16) or (bits[0] == 16 and separate):
            planes = " in separate planes" if separate else ""
            raise ValueError(f"{bits[0]} bits a sample{planes}; save it with 8 bits a sample")
        # OpenCV would take premultiplied alpha for straight, and padding for alpha.
        alpha = tags.get(_EXTRA_SAMPLES, (_STRAIGHT_ALPHA,))
        if bits[0] == 16 and image.mode in ("RGB", "RGBA") and alpha == (_STRAIGHT_ALPHA,):
            return _read_deep_colour(data, 1)
        luma = from_pil(image)
        if image.mode == "I;16" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            np.bitwise_not(luma, out=luma)  # which Pillow does for fewer bits alone
        return luma


def _read_webp(data: bytes, found: Header, check: _Check) -> Gray:
    check(found.width, found.height)
    # Pillow needs 1,540 MB for 100 megapixels, OpenCV 570
    return orient(_luma_of_bgr(read_opencv(data, cv2.IMREAD_UNCHANGED)), found.orientation)


def _read_pnm(data: bytes, found: Header, check: _Check) -> Gray:
    check(found.width, found.height)
    stored = pnm.read_header(data)
    samples = pnm.read_samples(data, stored)
    table = _to_8_bits(stored.maxval)
    luma = np.empty(samples.shape[:2], np.uint8)
    for rows in bands(luma.shape):
        luma[rows] = to_luma(table[np.minimum(samples[rows], stored.maxval)])
    return luma


_READERS: dict[str, Callable[[bytes, Header, _Check], Gray]] = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WebP": _read_webp,
    "BMP": _read_pillow,
    "GIF": _read_pillow,
    "TIFF": _read_tiff,
    "AVIF": _read_pillow,
    "PNM": _read_pnm,
}


def read_opencv(data: bytes, flags: int) -> NDArray[Any]:
    """Pixels as they are stored, BGR. Raises ValueError."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("corrupt data")
    return pixels


def _read_deep_colour(data: bytes, orientation: int) -> Gray:
    """RGB and RGBA of 16 bits, of which Pillow would drop the low byte."""
    with _silent_opencv():
        pixels = read_opencv(data, cv2.IMREAD_UNCHANGED)
    return orient(_luma_of_bgr(pixels), orientation)


_log_level = forks.Lock()


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keeps warnings about harmless oddities off stderr; the level belongs to the process."""
    with _log_level:
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)


def orientation(image: Image.Image) -> int:
    """Of the EXIF that a Pillow image carries, 1 where it is broken."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def from_pil(image: Image.Image) -> Gray:
    """Luma of a Pillow image of any 8-bit or 16-bit mode, (H, W) uint8.

    As for files, transparency is composited on white, and an EXIF orientation that the image
    carries is applied, as PIL.ImageOps.exif_transpose does. Raises InputError for a mode without a
    defined white, and whatever `image.load` raises.
    """
    if not image.width or not image.height:
        raise InputError(f"image has no pixels ({image.width} x {image.height})")
    image.load()
    if image.mode in ("I", "F", "LAB"):
        raise InputError(f"image mode {image.mode} has no defined white; convert it to L or RGB")
    luma = np.empty((image.height, image.width), np.uint8)
    for rows in bands(luma.shape):
        luma[rows] = _luma_of_pil(image.crop((0, rows.start, image.width, rows.stop)))
    return orient(luma, orientation(image))


def _luma_of_pil(image: Image.Image) -> Gray:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        luma: Gray = _to_8_bits(65535)[samples]
        if (key := image.info.get("transparency")) is not None:
            luma[samples == key] = 255
        return luma
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        return to_luma(np.asarray(image.convert("RGBA")))
    return to_luma(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))


def _luma_of_bgr(pixels: NDArray[Any]) -> Gray:
    """pixels: as OpenCV decodes them, uint8 or uint16, (H, W), (H, W, 3) BGR or (H, W, 4) BGRA."""
    luma = np.empty(pixels.shape[:2], np.uint8)
    for rows in bands(luma.shape):
        band = pixels[rows]
        if band.dtype == np.uint16:
            band = _to_8_bits(65535)[band]
        if band.ndim == 3:
            # 0.3 ms for 992 x 1401; an index that swaps the channels takes 6
            swap = cv2.COLOR_BGR2RGB if band.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
            band = cv2.cvtColor(band, swap)
        luma[rows] = to_luma(band)
    return luma


@lru_cache(4)
def _to_8_bits(maxval: int) -> NDArray[np.uint8]:
    """Table of v * 255 / maxval, rounded to nearest, for v in 0..maxval."""
    return ((np.arange(maxval + 1) * 255 + maxval // 2) // maxval).astype(np.uint8)


def encode(image: Gray, encoding: Encoding) -> bytes:
    """A file of one image in gray.

    image: (H, W) uint8. PNG and WebP are lossless, but for WebP with a quality. WebP stores colour,
    three equal channels. Raises EncodeError if the format cannot hold an image of that size.
    """
    height, width = image.shape
    limit = SIDE_LIMITS.get(encoding.format)
    if limit and max(height, width) > limit:
        raise EncodeError(
            f"image is {width} x {height} pixels, and {encoding.format} holds at most {limit} "
            "a side; use png"
        )
    if encoding.format == "png":
        return png.write(image)
    if encoding.format == "jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, encoding.quality or JPEG_QUALITY]
    else:
        options = [cv2.IMWRITE_WEBP_QUALITY, encoding.quality or _LOSSLESS_WEBP]
    done, data = cv2.imencode(f".{encoding.format}", image, options)
    if not done:
        raise EncodeError(f"image of {width} x {height} pixels cannot be encoded as {encoding}")
    return data.tobytes()
