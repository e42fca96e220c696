"""How large a picture is, and of which kind, by the header of its file alone."""

from __future__ import annotations

import io
import math

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from sketchify_rt.codec import containers, pnm


def measure(data: bytes) -> tuple[int, str]:
    """Pixels, 0 where decoding will tell what is wrong, and a kind, see `budget.PER_PIXEL`."""
    form = containers.identify(data) or ""
    pixels, special = 0, ""
    try:
        match form:
            case "JPEG":
                frame = containers.jpeg_header(data)
                special = " of CMYK" if frame.channels == 4 else ""
                pixels = frame.width * frame.height
            case "PNG":
                special = " of 16 bits" if data[24] == 16 and data[25] else ""
                pixels = containers.pixels(data)
            case "WebP":
                pixels = containers.pixels(data)
            case "PNM":
                header = pnm.read_header(data)
                special = " as text" if header.kind <= 3 else ""
                pixels = header.width * header.height
            case "TIFF":
                tiff = TiffImageFile(io.BytesIO(data))
                first, *others = tiff.tag_v2.get(BITSPERSAMPLE, (1,))
                special = " of 16 bits" if first == 16 and others else ""
                pixels = math.prod(tiff.size)
            case "BMP":
                pixels = math.prod(BmpImageFile(io.BytesIO(data)).size)
            case "GIF":
                pixels = math.prod(GifImageFile(io.BytesIO(data)).size)
            case "AVIF":
                pixels = math.prod(AvifImageFile(io.BytesIO(data)).size)
    except Exception:  # broken data makes readers raise anything
        pixels = 0
    return pixels, form + special if pixels else "luma"
