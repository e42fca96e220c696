"""The alpha plane of a source, and files of gray and alpha."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sketchify_rt.codec import cpu, header, png
from sketchify_rt.codec.header import File
from sketchify_rt.errors import EncodeError
from sketchify_rt.image import Gray, bands, orient
from sketchify_rt.options import Encoding

_LOSSLESS_WEBP = 101  # what OpenCV takes for it


def read(file: File) -> Gray | None:
    """Alpha of a file that `cpu.decode` has read, (H, W) uint8, upright; 255 is opaque.

    None where the file has none, which its header tells. 16 bits a sample become v / 257, rounded,
    and a transparent colour is 0. Raises whatever a decoder does.
    """
    data, found = file.data, file.header
    match found.format:
        case "PNG":
            return _read_png(data, found.bits)
        case "TIFF":
            return _read_tiff(data, found.bits)
        case "WebP" if found.alpha:
            return orient(_read_opencv(data), found.orientation)
        case "BMP" | "GIF" | "AVIF":
            with header.open_pillow(found.format, data) as image:
                return from_pil(image)
    return None


def _read_png(data: bytes, bits: int) -> Gray | None:
    with PngImageFile(io.BytesIO(header.without_profile(data))) as image:
        if not image.has_transparency_data:
            return None
        if bits == 16 and not image.mode.startswith("I;16"):
            return orient(_read_opencv(data), cpu.orientation(image))
        if image.mode == "L" and bits < 8 and "transparency" in image.info:
            image.info["transparency"] *= 255 // (2**bits - 1)  # as Pillow scales the samples
        return from_pil(image)


def _read_tiff(data: bytes, bits: int) -> Gray | None:
    with TiffImageFile(io.BytesIO(data)) as image:
        if image.mode == "RGBA" and bits == 16:
            return _read_opencv(data)  # upright
        return from_pil(image)


def _read_opencv(data: bytes) -> Gray:
    """Of a file with alpha or of 16 bits."""
    pixels = cpu.read_opencv(data, cv2.IMREAD_UNCHANGED)
    alpha: NDArray[Any] = cv2.extractChannel(pixels, 3)
    if alpha.dtype == np.uint16:
        for rows in bands(alpha.shape):
            alpha[rows] = (alpha[rows].astype(np.uint32) + 128) // 257
    return alpha.astype(np.uint8, copy=False)


def from_pil(image: Image.Image) -> Gray | None:
    """Alpha of a Pillow image of any mode that has luma, see `read`; None where it has none."""
    if not image.has_transparency_data:
        return None
    image.load()
    alpha = np.empty((image.height, image.width), np.uint8)
    for rows in bands(alpha.shape):
        alpha[rows] = _of_pil(image.crop((0, rows.start, image.width, rows.stop)))
    return orient(alpha, cpu.orientation(image))


def _of_pil(image: Image.Image) -> Gray:
    if image.mode.startswith("I;16"):
        return np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    return np.asarray(image.getchannel("A"))


def encode(image: Gray, alpha: Gray, encoding: Encoding) -> bytes:
    """A file of gray and straight alpha.

    image, alpha: (H, W) uint8. encoding: "png", or "webp", where pixels that alpha hides lose their
    gray. Raises EncodeError if the format cannot hold an image of that size.
    """
    if encoding.format == "png":
        return _png(image, alpha)
    height, width = image.shape
    limit = cpu.SIDE_LIMITS[encoding.format]
    if max(height, width) > limit:
        raise EncodeError(
            f"image is {width} x {height} pixels, and {encoding.format} holds at most {limit} "
            "a side; use png"
        )
    options = [cv2.IMWRITE_WEBP_QUALITY, encoding.quality or _LOSSLESS_WEBP]
    done, data = cv2.imencode(".webp", cv2.merge((image, image, image, alpha)), options)
    if not done:
        raise EncodeError(f"image of {width} x {height} pixels cannot be encoded as {encoding}")
    return data.tobytes()


def _png(image: Gray, alpha: Gray) -> bytes:
    # Its rows are those of a gray picture of twice the width; only the header is another.
    height, width = image.shape
    gray = png.write(np.dstack((image, alpha)).reshape(height, 2 * width))
    start = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    return gray[:8] + png.chunk(b"IHDR", start) + gray[33:]
